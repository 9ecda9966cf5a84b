"""Trainings that a study links: those requested, of any length, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diptych.errors import UserError
from diptych.study.reproduce import runner
from studies import Fake, states, trained


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "report_study", lambda out: None)


def test_a_linked_training_is_used_and_not_repeated(tmp_path: Path) -> None:
    """Its folder stands in the commands; a wrong one is refused."""
    run = trained(tmp_path / "long")
    fake = Fake(tmp_path / "study")
    with pytest.raises(UserError, match="was trained by torch"):
        fake.go(use=(("jittor-seed0", str(run)),))
    study = fake.go(use=(("torch-seed0", str(run)),))
    assert states(study)["train-torch-seed0"] == "skipped"
    stage = next(s for s in study["stages"] if s["name"] == "train-torch-seed0")
    assert (stage["why"], stage["linked"]) == ("linked", str(run))
    assert study["runs"]["torch-seed0"] == str(run)
    sample = next(s for s in study["stages"] if s["name"] == "samples-torch")
    assert sample["words"][1] == str(run)
    with pytest.raises(UserError, match="not a run folder"):
        Fake(tmp_path / "b").go(use=(("torch-seed0", str(tmp_path)),))


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("torch-seed1", ["seed=0"], "seed=0, this study needs 1"),
        ("torch-seed0", ["seed=1"], "seed=1, this study needs 0"),
        ("torch-seed0", ["data.source=fashion_mnist"], "data.source=fashion_mnist, this study"),
        ("torch-seed0", ["train.lr=0.5"], "train.lr=0.5, this study needs 0.002"),
        ("torch-seed0", ["diffusion.schedule=cosine"], "schedule=cosine"),
    ],
)
def test_a_training_of_other_settings_is_not_linked(
    tmp_path: Path, name: str, changes: list[str], said: str
) -> None:
    run = trained(tmp_path / "run", *changes)
    with pytest.raises(UserError, match=said):
        Fake(tmp_path / "study").go(seeds=(0, 1), use=((name, str(run)),))
    assert not (tmp_path / "study").exists()


def test_a_linked_training_of_another_length_is_said(tmp_path: Path, capsys: Any) -> None:
    """It serves; that it is shorter or longer stands on stderr and in study.json."""
    run = trained(tmp_path / "run", "train.epochs=3", "train.log_every=7", steps=938)
    use = (("torch-seed0", str(run)),)
    linked = Fake(tmp_path / "a").go(use=use, only=("train",))["linked"]
    assert linked == {"torch-seed0": {"run": str(run), "steps": 938, "asked_steps": 7504}}
    said = capsys.readouterr().err
    assert (
        "torch-seed0: the linked run was trained for 938 steps, this study asks for 7,504" in said
    )
    for k, length in enumerate(({"epochs": 1}, {"steps": 938})):
        asked = Fake(tmp_path / f"b{k}").go(use=use, only=("train",), **length)["linked"]
        assert asked["torch-seed0"]["asked_steps"] == 938
        assert "asks for" not in capsys.readouterr().err
