"""Studies without processes: a stand-in runs the stages; runs hold only what a study reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diptych.config.load import load_config, to_yaml
from diptych.files import write_json
from diptych.study.reproduce import StudyRequest, reproduce, runner, stages


class Fake:
    """A stand-in for the processes: writes a stage's files, fails, or is interrupted."""

    def __init__(self, out: Path, fail: str = "", stop: str = "") -> None:
        self.out, self.fail, self.stop = out, fail, stop
        self.ran: list[list[str]] = []
        self.anew: list[str] = []

    def __call__(self, commands: list[list[str]], folder: Path) -> list[tuple[int, float]]:
        assert folder == self.out
        listed = stages(StudyRequest(**self.asked))
        by_words = {tuple(runner.command(s, anew)): s for s in listed for anew in (True, False)}
        group = [by_words[tuple(words)] for words in commands]
        self.anew += [s.name for s, w in zip(group, commands, strict=True)
                      if w != runner.command(s)]  # fmt: skip
        ended = []
        for stage in group:
            if stage.name == self.stop:
                raise KeyboardInterrupt
            if stage.name == self.fail:
                ended.append((1, 10.0))
                continue
            for name in stage.outputs:
                (self.out / name).touch()
                if stage.name.startswith("train"):
                    weigh((self.out / name).parent, "{}")
            ended.append((0, 10.0))
        self.ran.append([stage.name for stage in group])
        return ended

    asked: dict[str, Any]

    def go(self, parallel: bool = False, **asked: Any) -> dict[str, Any]:
        self.asked = {"preset": "mnist", **asked}
        return reproduce(StudyRequest(**self.asked), self.out, parallel=parallel, run=self)


def weigh(run: Path, manifest: str) -> None:
    """Write a run's weights, as far as a study reads them."""
    path = run / "checkpoints" / "step-00000938" / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(manifest)


def states(study: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in study["stages"]}


def trained(run: Path, *changes: str, steps: int = 9380) -> Path:
    """Write a PyTorch run folder, as far as a study reads it before it begins."""
    (run / "checkpoints" / f"step-{steps:08d}").mkdir(parents=True)
    write_json(run / "environment.json", {"backend": "torch", "dataset_images": 60_000})
    (run / "config.yaml").write_text(to_yaml(load_config("mnist", list(changes))))
    return run
