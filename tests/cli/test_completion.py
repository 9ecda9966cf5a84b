"""Tab completion: the values offered, and its installation."""

from __future__ import annotations

import subprocess

import pytest
from click.shell_completion import ShellComplete

from commands import call
from diptych.cli import cli
from diptych.cli.completion import VARIABLE, install_to


def offered(*words: str) -> list[str]:
    """The values that a shell would show for the last word."""
    *before, last = words
    found = ShellComplete(cli, {}, "diptych", VARIABLE).get_completions(before, last)
    return [item.value for item in found if item.type == "plain"]


def test_values_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/first", "zebra"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("")
    assert {"train", "watch", "list"} <= set(offered(""))
    assert offered("train", "small") == ["small_colour"]
    assert {"zoo:mnist-torch", "zebra"} <= set(offered("sample", "z"))
    assert offered("watch", "runs/") == ["runs/first"]
    assert "dpmpp-sde" in offered("sample", "zebra", "--solver", "dp")
    assert offered("evaluate", "zebra", "--metrics", "fid,ki") == ["fid,kid"]
    assert offered("encode", "x.png", "--model", "zoo:mnist-t") == ["zoo:mnist-torch"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "completion", shell)
    assert code == 0 and VARIABLE in out
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=out, text=True).returncode == 0


def test_it_is_installed_once(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / ".bashrc").write_text("alias x=y")
    for _ in range(2):
        install_to("bash", "the script\n", tmp_path)
    lines = (tmp_path / ".bashrc").read_text().splitlines()
    script = tmp_path / ".config" / "diptych" / "completion.bash"
    assert script.read_text() == "the script\n" and lines[0] == "alias x=y" and len(lines) == 2
    assert lines[1].startswith(f'. "{script}"')
    install_to("fish", "the script\n", tmp_path)
    assert (tmp_path / ".config" / "fish" / "completions" / "diptych.fish").is_file()


def test_an_unknown_shell_is_refused(monkeypatch, capsys):
    code, _, err = call(monkeypatch, capsys, "completion", "csh")
    assert code == 2 and "bash" in err
