"""`diptych inspect` and `diptych convert` as used on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diptych.cli import main


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    monkeypatch.setattr("sys.argv", ["diptych", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


def test_a_model_goes_through_every_form_and_stays_itself(
    monkeypatch: Any, capsys: Any, tmp_path: Path
) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        return call(monkeypatch, capsys, *arguments)

    source, hashes = "zoo:mnist-jittor", set()
    for name, config in (("a.safetensors", []), ("b.ckpt", ["--config", "mnist"]),
                         ("c.pkl", ["--config", "mnist"]), ("d", ["--config", "mnist"]),
                         ("e.safetensors", [])):  # fmt: skip
        code, out, err = run("convert", source, tmp_path / name, *config)
        assert code == 0 and str(tmp_path / name) in out and not err
        source = str(tmp_path / name)
        code, out, err = run("inspect", source, "--json")
        facts = json.loads(out)
        hashes.add(facts["weights_sha256"])
        assert facts["parameters"] == 1_474_481 and facts["network"]["ch_mult"] == [1, 3, 6]
        assert (facts["config"] is None) == name.startswith(("b", "c"))
        assert ("mnist" in facts["fits"]) == name.startswith(("b", "c"))
    assert len(hashes) == 1
    code, out, _ = run("inspect", tmp_path / "b.ckpt")
    assert code == 0 and "1,474,481" in out and "give a --config" in out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["inspect", "nothere"], "not found"),
        (["inspect", "."], "is not a run, a checkpoint or a folder of diffusers"),
        (["inspect", "pretrained:ema_mnist"], "is not known"),
        (["convert", "zoo:mnist-torch", "x.bin"], "into which form"),
        (["convert", "zoo:mnist-torch", "x", "--ema", "--raw"], "exclude each other"),
        (["convert", "zoo:mnist-torch", "x.ckpt", "--seed", "3"], "--seed only applies to runs"),
        (["convert", "zoo:mnist-torch", "x", "--to", "run"], "needs its config"),
        (["convert", "here", "x", "--to", "run", "--config", "tiny"], "weights file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    monkeypatch: Any, capsys: Any, tmp_path: Path, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2 and not out and err.count("\n") == 1 and words in err
    assert not list(tmp_path.iterdir())
