"""Names of a port, the equivalence test, the table of mutations, figures, and bad input."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from diptych import cli
from diptych.align.faults import mutations
from diptych.align.ladder.rungs import LADDER, choose
from diptych.align.ladder.trace import Rung, Tracer
from diptych.align.ports.climb import _renamed, framework_of
from diptych.align.ports.names import matched, module_paths, read_names, translate
from diptych.align.ports.targets import target_of
from diptych.align.training import free
from diptych.cli.align import ladder
from diptych.config.load import load_config
from diptych.errors import UserError
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.stats import paired_tost

WANTED = {"conv_in.weight": (4, 1), "down.0.block.0.norm1.weight": (4,), "down.0.block.0.norm1.bias": (4,)}  # noqa: E501 # fmt: skip
MAP = {"conv_in": "stem", "down.0.block.0": "enc.a", "down.0.block.0.norm1": "enc.a.n1"}


def test_names_are_translated_by_their_longest_beginning():
    assert translate("conv_in.weight", MAP) == "stem.weight"
    assert translate("down.0.block.0.norm1.bias", MAP) == "enc.a.n1.bias"
    assert translate("down.0.block.0.conv1.bias", MAP) == "enc.a.conv1.bias"
    assert translate("conv_inner.weight", MAP) == "conv_inner.weight"


def test_parameters_and_modules_are_matched():
    found = {translate(name, MAP): shape for name, shape in WANTED.items()}
    pairs = matched(WANTED, found, MAP, "port")
    paths = module_paths(pairs)
    assert paths["down.0.block.0.norm1"] == "enc.a.n1" and paths["down.0.block.0"] == "enc.a"
    assert paths["conv_in"] == "stem"


BAD_NAMES = {
    "missing": ({"stem.weight": None}, r"'stem.weight' \(the reference's 'conv_in.weight'\)"),
    "shape": ({"stem.weight": (5, 1)}, r"is \(5, 1\), the reference's is \(4, 1\)"),
    "extra": ({"head.weight": (1,)}, "'head.weight' is not in the reference"),
}


@pytest.mark.parametrize("change, words", BAD_NAMES.values(), ids=BAD_NAMES.keys())
def test_names_that_do_not_fit_are_refused(change, words):
    found = {translate(name, MAP): shape for name, shape in WANTED.items()} | change
    found = {name: shape for name, shape in found.items() if shape is not None}
    with pytest.raises(UserError, match=words):
        matched(WANTED, found, MAP, "port")


def test_a_map_that_is_none_is_refused(tmp_path):
    for text in ("[1, 2]", "a: [b]", "{"):
        (tmp_path / "map.yaml").write_text(text)
        with pytest.raises(UserError, match=r"map\.yaml"):
            read_names(tmp_path / "map.yaml")


def test_a_map_of_a_trace_may_swap_two_names():
    """Applied one after another, the second would take the array that the first one wrote."""
    truth = Rung({"a": np.zeros(1), "b": np.ones(1), "c": np.full(1, 2.0)})
    got = Rung({"b": np.zeros(1), "a": np.ones(1), "x": np.full(1, 2.0), "c": np.full(1, 3.0)})
    found = _renamed(got, truth, {"a": "b", "b": "a", "c": "x"}).arrays
    assert {n: float(a[0]) for n, a in found.items()} == {
        "a": 0.0, "b": 1.0, "c": 2.0, "c (not mapped)": 3.0,
    }  # fmt: skip


def test_a_port_in_the_working_directory_is_found(tmp_path, monkeypatch):
    """An installed command has its own folder first on the path, not the working directory."""
    (tmp_path / "small_port_here.py").write_text("import torch\n")
    monkeypatch.chdir(tmp_path)
    kept = [p for p in sys.path if p not in ("", ".", str(tmp_path))]
    monkeypatch.setattr(sys, "path", kept)
    assert framework_of("small_port_here:build") == ("torch", "small_port_here:build")
    assert target_of("small_port_here:build").framework == "torch"
    assert sys.path == kept


def test_equivalence_is_shown_only_where_it_holds():
    a = [1.0, 1.1, 0.9, 1.05]
    near = paired_tost(a, [x * r for x, r in zip(a, (1.01, 0.99, 1.0, 1.005), strict=True)], 0.05)
    assert near["equivalent"] and near["p"] < 0.05
    assert near["low"] < near["ratio"] < near["high"] < 1.05
    far = paired_tost(a, [x * 1.08 for x in a], 0.05)
    assert not far["equivalent"] and far["p"] > 0.5
    unclear = paired_tost(a, [x * r for x, r in zip(a, (1.2, 0.8, 1.1, 0.9), strict=True)], 0.05)
    assert not unclear["equivalent"], "scattered seeds show nothing"
    same = paired_tost(a, a, 0.05)
    assert same["equivalent"] and same["p"] == 0.0


def test_the_equivalence_test_keeps_its_level():
    """At a true ratio on the margin it says 'equivalent' in 5 % of cases, no more."""
    generator = np.random.default_rng(0)
    limit, wrong = np.log1p(0.05), 0
    for _ in range(2000):
        d = limit + 0.01 * generator.standard_normal(4)
        wrong += paired_tost([1.0] * 4, np.exp(d).tolist(), 0.05)["equivalent"]
    assert 0.03 < wrong / 2000 < 0.07


@pytest.mark.parametrize("a, b, margin", [([1], [1], 0.1), ([1, 2], [1], 0.1), ([1, 2], [1, 2], 0)])
def test_the_equivalence_test_refuses(a, b, margin):
    with pytest.raises(UserError):
        paired_tost(a, b, margin)


@pytest.mark.parametrize("factor, passed", [(1.001, True), (1.08, False)])
def test_the_sentence_of_free_training_follows_from_the_test(factor, passed):
    request = free.FreeTrainingRequest("tiny", load_config("tiny"), 3, 100, 0.05, 2)
    torch = [[0.30, 0.10], [0.31, 0.11], [0.29, 0.12]]
    wobble = (1.0, 1.002, 0.999)
    jittor = [[x * factor * w for x in row] for row, w in zip(torch, wobble, strict=True)]
    result = free.conclude(request, {"torch": torch, "jittor": jittor})
    assert result["passed"] is passed
    assert ("is not shown" in result["conclusion"]) is not passed
    assert "the margin set beforehand" in result["conclusion"]
    assert len(result["per_bin"]) == 2 and "bin 2/2" in free.table(result)


def test_the_table_of_mutations_covers_every_rung():
    assert len(mutations.MUTATIONS) >= 90
    assert {m.rung for m in mutations.MUTATIONS.values()} == set(LADDER)
    assert [m.name for m in mutations.choose(["norm_eps"])] == ["norm_eps"]
    assert choose(["layers", "config"]) == ("config", "layers")


def test_a_fault_is_taken_back():
    from diptych.training import batches

    before = batches.to_float
    with mutations.planted("colours_reversed", None):
        assert batches.to_float is not before
    assert batches.to_float is before


def call(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["diptych", *map(str, words)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capsys.readouterr()
    return code, out, err


BAD = {
    "no preset": (["align"], "which preset"),
    "preset": (["align", "tinny"], "did you mean 'tiny'"),
    "rung": (["align", "tiny", "--rungs", "layer"], "did you mean 'layers'"),
    "mutation": (["align", "tiny", "--mutate", "norm_ep"], "did you mean 'norm_eps'"),
    "one panel": (["align", "tiny", "--backends", "torch"], "give two, such as torch,jittor"),
    "unknown panel": (["align", "tiny", "--backends", "torch,jitter"], "did you mean 'jittor'"),
    "into": (["align", "tiny", "--mutate", "all", "--into", "numpy"], "--into numpy"),
    "steps": (["align", "tiny", "--steps", "0"], "1 or more"),
    "rung of a fault": (
        ["align", "tiny", "--rungs", "config", "--mutate", "norm_eps"], "leaves out 'operators'",
    ),
    "keep": (["align", "tiny", "--keep-traces"], "--out"),
    "no rungs": (["align", "tiny", "--rungs", ""], "is empty"),
    "no faults": (["align", "tiny", "--mutate", ","], "is empty"),
    "half a pair": (["align", "--subject", "a.b:c"], "go together"),
    "preset and subject": (
        ["align", "tiny", "--subject", "a:b", "--reference", "torch:tiny"], "in --reference",
    ),
    "no such port": (["align", "--subject", "nowhere:x", "--reference", "torch:tiny"], "nowhere"),
    "no such panel": (
        ["align", "--subject", "json:x", "--reference", "jitter:tiny"], "did you mean 'jittor'",
    ),
    "no such thing": (
        ["align", "--subject", "nothing", "--reference", "torch:tiny"], "not there",
    ),
    "batch": (["align", "tiny", "--batch", "0"], "--batch 0: must be 1 or more"),
    "names of panels": (["align", "tiny", "--names", "x"], "--names is for --subject"),
    "time of panels": (["align", "tiny", "--time", "t"], "--time is for --subject"),
    "few seeds": (
        ["align", "train", "tiny", "--steps", "5", "--seeds", "2", "--out", "OUT"], "3 or",
    ),
    "margin": (
        ["align", "train", "tiny", "--steps", "5", "--margin", "0", "--out", "OUT"], "--margin",
    ),
}  # fmt: skip


@pytest.mark.parametrize("words, expected", BAD.values(), ids=BAD.keys())
def test_bad_input_gives_one_line(monkeypatch, capsys, tmp_path, words, expected):
    words = [tmp_path / "out" if word == "OUT" else word for word in words]
    code, out, err = call(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    assert expected in err and err.count("\n") == 1


def traces(tmp_path, error):
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((2, 4, 8)).astype(np.float32)
    for name, bend in (("a", 0.0), ("b", error)):
        with Tracer(tmp_path / name, name) as trace:
            trace.add("layers", "free/stem" if name == "b" else "free/conv_in", x)
            trace.add("layers", "free/out", y * np.float32(1 + bend))
    (tmp_path / "map.json").write_text(json.dumps({"free/conv_in": "free/stem"}))
    return ["align", "--subject", tmp_path / "b", "--reference", tmp_path / "a",
            "--names", tmp_path / "map.json"]  # fmt: skip


@pytest.mark.parametrize("error, code", [(1e-6, 0), (1e-3, 3)])
def test_two_folders_of_traces(monkeypatch, capsys, tmp_path, error, code):
    found, out, _ = call(monkeypatch, capsys, *traces(tmp_path, error), "--out", tmp_path / "page")
    assert found == code
    assert ("free/out" in out.splitlines()[-1]) == (code == 3)
    assert "<html" in (tmp_path / "page" / "index.html").read_text()


def test_a_trace_without_a_tensor_names_it(monkeypatch, capsys, tmp_path):
    words = traces(tmp_path, 0.0)
    code, out, _ = call(monkeypatch, capsys, *words[:-2])  # without the map
    assert code == 3 and "'free/conv_in' of port is missing" in out.splitlines()[-1]


def test_listing(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "align", "--list")
    assert code == 0 and "swapped_norms" in out and "lockstep" in out
    code, out, _ = call(monkeypatch, capsys, "align", "--list", "--json")
    assert code == 0 and [*json.loads(out)] == ["rungs", "faults", "faults_of_engines"]


def test_an_unknown_device_is_refused_before_the_climb(monkeypatch, capsys):
    code, _, err = call(monkeypatch, capsys, "align", "tiny", "--device", "tpu")
    assert code == 2 and err.startswith("diptych: device 'tpu' is not known")


def test_two_checkpoints_are_compared_bit_by_bit(monkeypatch, capsys, tmp_path):
    weights = initial_weights(make_plan(load_config("tiny")), 0)
    save_file(weights, tmp_path / "a.safetensors")
    name = "mid.attn_1.q.weight"
    bent = {**weights, name: weights[name] + np.float32(1e-6)}
    save_file(bent, tmp_path / "bent.safetensors")
    save_file({k: w for k, w in bent.items() if k != name}, tmp_path / "less.safetensors")
    found = {}
    for other in ("a", "bent", "less"):
        paths = [tmp_path / f"{x}.safetensors" for x in (other, "a")]
        words = ["align", "--subject", paths[0], "--reference", paths[1]]
        found[other] = call(monkeypatch, capsys, *words)
    assert found["a"][0] == 0
    assert found["bent"][0] == 3 and name in found["bent"][1].splitlines()[-1]
    assert found["less"][0] == 2 and f"'{name}' is missing" in found["less"][2]


@pytest.mark.parametrize("option", ["--batch=4", "--time=t", "--set=model.ch=8", "--keep-traces"])
def test_traces_take_no_option_of_a_network(monkeypatch, capsys, tmp_path, option):
    words = [*traces(tmp_path, 0.0), option, "--out", tmp_path / "out"]
    code, out, err = call(monkeypatch, capsys, *words)
    named = option.partition("=")[0]
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"{named} is for a network as --subject" in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option",
    ["--names=x", "--inputs=x", "--rungs=loss", "--seed=1", "--steps=9", "--out=x", "--json"],
)
def test_the_files_to_begin_with_take_no_option_of_a_climb(monkeypatch, capsys, tmp_path, option):
    words = ["align", "port", "--init", tmp_path / "new", option]
    code, out, err = call(monkeypatch, capsys, *words)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"{option.partition('=')[0]} is for a climb, not for --init" in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "option", ["--steps=3", "--device=cuda", "--mutate=all", "--no-deterministic"]
)
def test_a_port_is_not_given_what_only_the_panels_take(option):
    words = ["--subject", "torch:tiny", "--reference", "torch:tiny", option]
    with pytest.raises(UserError, match="is for the two panels"):
        ladder.main(words, standalone_mode=False)
