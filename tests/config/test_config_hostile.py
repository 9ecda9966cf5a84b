"""Texts and paths that nobody means well with: one line, within seconds, and little memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.config.load import load_config, parse_tree, validate
from diptych.config.yaml import MOST_VALUES, read_yaml
from diptych.errors import UserError
from diptych.files import parse_json, read_json
from diptych.weights.formats import read_config
from diptych.weights.formats.schedulers import read_scheduler

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
TEXTS = {
    "aliases of aliases": (LAUGHS, "values, aliases counted in full"),
    "merged aliases": ("a: &a {" + ", ".join(f"k{i}: 1" for i in range(200)) + "}\n"
                       + "".join(f"b{i}: {{<<: *a}}\n" for i in range(200)), "counted in full"),
    "many aliases": ("a: &a x\nb: [" + ", ".join(["*a"] * 20_000) + "]", "counted in full"),
    "many keys": ("".join(f"k{i}: 1\n" for i in range(40_000)), "more than 20,000 values"),
    "as many as it may": ("".join(f"k{i}: 1\n" for i in range(MOST_VALUES // 2 - 1)), "not known"),
    "deep lists": ("seed: " + "[" * 100_000, "more than 32 levels"),
    "deep blocks": ("- " * 100_000, "more than 32 levels"),
    "deep keys": ("? " * 100_000, "more than 32 levels"),
    "itself": ("data: &a {x: *a}", "or itself"),
    "nothing": ("data: *a", "names nothing before it"),
    "digits": ("seed: " + "9" * 400, "more than 100 digits"),
    "base 60": ("seed: " + ":".join(["59"] * 400), "more than 100 digits"),
    "infinity": ("train: {lr: .inf}", "finite"),
    "no number": ("train: {lr: .nan}", "train.lr"),
    "large": ("train: {lr: 1e999}", "finite"),
    "long": ("# " + "x" * 2**21, "longer than"),
    "long word": ("data: {split: " + "x" * 100_000 + "}", "data.split"),
    "twice": ("seed: 1\nseed: 2", "occurs twice"),
}  # fmt: skip
JSONS = {
    "deep": ("[" * 100_000, "levels"),
    "deep and whole": ('{"a":' * 300 + "1" + "}" * 300, "more than 64 levels"),
    "digits": ('{"a": ' + "9" * 400 + "}", "beyond 64 bits"),
    "more digits": ('{"a": ' + "9" * 5000 + "}", "beyond 64 bits"),
    "infinity": ('{"a": Infinity}', "not finite"),
    "no number": ('{"a": NaN}', "not finite"),
    "large": ('{"a": 1e999}', "not finite"),
    "twice": ('{"a": 1, "a": 2}', "'a' occurs twice"),
    "many": ("[" + "[]," * 3_000_000 + "1]", "more than 2,000,000 values"),
    "list": ("[1]", "expected a JSON object"),
    "no text": ("", "cannot be read as JSON"),
}


def one_line(error: Any) -> str:
    message = str(error.value)
    assert "\n" not in message and len(message) < 700
    return message


@pytest.mark.parametrize("name", TEXTS)
def test_a_config_out_of_bounds_is_one_line(tmp_path: Path, name: str) -> None:
    text, words = TEXTS[name]
    path = tmp_path / "c.yaml"
    path.write_text(text)
    for read in (load_config, read_config):
        with pytest.raises(UserError) as error:
            read(str(path))
        assert words in one_line(error)


@pytest.mark.parametrize("name", JSONS)
def test_json_out_of_bounds_is_one_line(tmp_path: Path, name: str) -> None:
    text, words = JSONS[name]
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_json(path)
    assert words in one_line(error)


def test_bounds_hold_in_time_and_memory(tmp_path: Path) -> None:
    """All of them in a process of its own, which may take 300 MB and 2 s of processor time each."""
    for kind, texts in (("yaml", TEXTS), ("json", JSONS)):
        for i, (text, _) in enumerate(texts.values()):
            (tmp_path / f"{i}.{kind}").write_text(text)
    code = """
import sys, time
from pathlib import Path
from diptych.config.load import load_config
from diptych.files import read_json
from diptych.errors import UserError
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        (load_config if path.suffix == ".yaml" else lambda p: read_json(Path(p)))(str(path))
    except UserError:
        pass
    assert time.process_time() - start < 2, (path, time.process_time() - start)
# Not getrusage: its peak begins with that of the process that started this one.
status = Path("/proc/self/status").read_text().split()
assert int(status[status.index("VmHWM:") + 1]) < 300 * 1024
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=300)


@pytest.mark.parametrize("kind", ["fifo", "device", "link to itself", "folder", "socket"])
def test_what_is_no_file_is_one_line_and_no_wait(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    else:
        import socket

        place, here = os.getcwd(), socket.socket(socket.AF_UNIX)
        os.chdir(tmp_path)  # a socket's path is short
        here.bind("c.yaml")
        here.close()
        os.chdir(place)
    for read in (load_config, read_config, lambda p: read_json(Path(p))):
        with pytest.raises(UserError) as error:
            read(str(path))
        assert "c.yaml" in one_line(error)


@pytest.mark.parametrize("name", ["x" * 300 + ".yaml", "a\0b.yaml", os.fsdecode(b"\xff\xfe.yaml")])
def test_a_path_that_cannot_be_is_one_line(name: str) -> None:
    for read in (load_config, read_config, lambda p: read_json(Path(p))):
        with pytest.raises(UserError) as error:
            read(name)
        one_line(error)


# Whatever comes: a result, or a UserError

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["mnist", "eps", "DDPMScheduler", "linear", "1e-4", 10**400, -1])
)  # fmt: skip
words = st.sampled_from([
    "data", "model", "train", "diffusion", "seed", "source", "ch", "ch_mult", "timesteps", "lr",
    "_class_name", "beta_schedule", "prediction_type", "num_train_timesteps", "clip_sample",
    "variance_type", "timestep_spacing", "rescale_betas_zero_snr", "sampling", "optim", "training",
]) | st.text(max_size=10)  # fmt: skip
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=5),
    max_leaves=25,
)


def harmless(call: Any, *given: Any) -> None:
    try:
        call(*given)
    except UserError as error:
        assert "\n" not in str(error)


@given(st.dictionaries(words, trees, max_size=6))
def test_any_tree_is_a_config_or_a_user_error(tree: dict[str, Any]) -> None:
    from diptych.weights.formats import from_official

    harmless(validate, tree, "c.yaml")
    harmless(from_official, tree, "c.yaml")
    harmless(read_scheduler, {"_class_name": "DDIMScheduler", **tree}, Path("s.json"))


@given(
    st.text()
    | st.text("[]{}:-,&*a1\n !|>#'\"%?<", max_size=60)
    | trees.map(lambda tree: json.dumps(tree, default=str))
)
def test_any_text_is_a_tree_or_a_fault(text: str) -> None:
    harmless(parse_tree, text, "c.yaml")
    with contextlib.suppress(ValueError):
        parse_json(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_fault(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_json(content)


def test_merge_keys_and_a_few_aliases_are_yaml_as_people_write_it() -> None:
    text = "base: &base {x: 1, y: 2}\nchild: {<<: *base, y: 3}\nlist: [*base, *base]"
    base = {"x": 1, "y": 2}
    assert read_yaml(text) == {"base": base, "child": {"x": 1, "y": 3}, "list": [base, base]}
