"""`make study`: its stages, what makes one undone, and the figures beside real images."""

from __future__ import annotations

import importlib.util
import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diptych.api import train
from diptych.cli import cli
from diptych.data.readers.npz import read_npz
from diptych.files import read_json, write_json
from diptych.weights import find
from report_records import WEIGHTS, make_scores

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    """A script of docs/ or tools/ as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{Path(name).name}", ROOT / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


study = script("docs/study")


class Commands:
    """Stands for the commands: notes them, and is interrupted at the `stop`-th."""

    def __init__(self, stop: int = 0) -> None:
        self.done: list[tuple[str, ...]] = []
        self.stop = stop

    def __call__(self, words: tuple[str, ...]) -> None:
        if len(self.done) + 1 == self.stop:
            raise KeyboardInterrupt
        self.done.append(words)


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo whose weights can be replaced."""
    folder = tmp_path / "zoo"
    monkeypatch.setattr(study, "zoo_folder", lambda: folder)
    for name in study.MNIST:
        (folder / name).mkdir(parents=True)
        write_json(folder / name / "manifest.json", {"weights_sha256": "0" * 64})
    return folder


def test_an_interrupted_renewal_goes_on_and_a_whole_one_does_nothing(tmp_path, zoo):
    straight = Commands()
    names = study.go(tmp_path / "a", ".*", straight)
    assert names == [stage.name for stage in study.stages(tmp_path / "a")] and len(names) > 15
    first = Commands(stop=4)
    with pytest.raises(KeyboardInterrupt):
        study.go(tmp_path / "b", ".*", first)
    second = Commands()
    study.go(tmp_path / "b", ".*", second)
    as_a = [tuple(word.replace(str(tmp_path / "b"), str(tmp_path / "a")) for word in words)
            for words in first.done + second.done]  # fmt: skip
    assert sorted(set(as_a)) == sorted(set(straight.done)) and as_a[:3] == straight.done[:3]
    assert study.go(tmp_path / "b", ".*", Commands(stop=1)) == []


def test_what_is_made_of_other_weights_or_settings_is_made_again(tmp_path, zoo, monkeypatch):
    study.go(tmp_path / "a", ".*", Commands())
    write_json(zoo / "mnist-jittor" / "manifest.json", {"weights_sha256": "1" * 64})
    again = study.go(tmp_path / "a", ".*", Commands())
    assert {"study", "scores-ddim", "quality", "editing", "steps-mnist-jittor"} <= set(again)
    assert not {"train-mnist-jittor", "steps-mnist-torch", "emoji"} & set(again)
    guide = zoo / "mnist-torch" / "guide" / "manifest.json"
    write_json(guide, {"weights_sha256": "2" * 64})
    assert {"study", "quality"} <= set(study.go(tmp_path / "a", ".*", Commands()))
    write_json(guide, {"weights_sha256": "3" * 64})
    again = study.go(tmp_path / "a", ".*", Commands())
    assert {"study", "quality"} <= set(again) and "steps-mnist-jittor" not in again
    real = study.load_config
    monkeypatch.setattr(study, "load_config", lambda name: real(name, ["train.lr=0.5"]))
    again = study.go(tmp_path / "a", ".*", Commands())
    assert "train-mnist-torch" in again and "emoji" not in again
    assert study.go(tmp_path / "a", "zoo-.*", Commands(stop=1)) == []


def test_what_cannot_be_done_is_one_line(tmp_path, zoo, monkeypatch, capsys) -> None:
    def call(*words: str) -> tuple[Any, str]:
        monkeypatch.setattr("sys.argv", ["study.py", *words])
        with pytest.raises(SystemExit) as ended:
            study.main()
        return ended.value.code, capsys.readouterr().err

    (tmp_path / "file").touch()
    code, said = call(str(tmp_path / "file"))
    assert code == 2 and "is not a folder" in said
    code, said = call(str(tmp_path / "a"), "--only", "trian-.*")
    assert code == 2 and "no stage has such a name" in said and not (tmp_path / "a").exists()
    with study.hold(tmp_path / "b"):
        code, said = call(str(tmp_path / "b"))
    assert code == 2 and "another process" in said

    def fail(words: tuple[str, ...], **_: Any) -> None:
        raise study.subprocess.CalledProcessError(2, words)

    monkeypatch.setattr(study.subprocess, "run", fail)
    code, _ = call(str(tmp_path / "c"))
    assert code == f"study: a command failed: -m tools.emoji --out {tmp_path / 'c/emoji32.npz'}"


def test_a_guide_is_trained_and_published_after_its_model(tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in study.stages(tmp_path)}
    for name in study.GUIDED:
        model, guide = stages[f"zoo-{name}"].commands
        assert model[2] == name and guide[2] == f"{name}/guide" and "--guidance" in guide
        (train,) = stages[f"train-{name}-guide"].commands
        assert train[train.index("--out") + 1] == guide[1] and "model.ch=8" in train
        assert stages[f"zoo-{name}"].uses == (Path(model[1]), Path(guide[1]))
    names = list(stages)
    (shared,) = stages["zoo-mnist-jittor"].commands
    assert shared[shared.index("--guide") + 1] == "zoo:mnist-torch/guide"
    assert names.index("zoo-mnist-torch") < names.index("zoo-mnist-jittor")


def test_its_commands_are_commands(tmp_path: Path) -> None:
    for stage in study.stages(tmp_path):
        for words in stage.commands:
            if words[:2] == ("-m", "diptych"):
                cli.commands[words[2]].make_context(words[2], list(words[3:]))  # type: ignore[attr-defined]
            else:
                file = words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0]
                assert (ROOT / file).is_file()


def test_borders_and_what_was_asked_for() -> None:
    quality = script("docs/quality")
    images = np.zeros((4, 28, 28, 1), np.uint8)
    images[:, 4:24, 4:24] = 255  # not of the border
    images[0, 0, :, 0] = 9  # 28 of its 28 * 28 - 22 * 22 = 300 pixels, in one of 4 images
    images[1, 27, :, 0] = 8  # not above 8
    found = quality.looks(images, "mnist", None)
    assert found == {"border": pytest.approx(28 / 1200)}
    likeliest = int(quality.open_extractor("mnist", "torch", "cpu")(
        (images.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)[3:]
    ).logits.argmax())  # fmt: skip
    other = (likeliest + 1) % 10
    assert quality.looks(images[2:], "mnist", [likeliest, other])["as_asked"] == 0.5


def test_the_page_names_models_and_floors() -> None:
    quality = script("docs/quality")
    scores = {"fid": 0.0123, "is": 9.5, "precision": 0.9, "recall": 0.8}
    real: dict[str, Any] = {"num": 10_000, "scores": scores, "readable": 0.97, "border": 0.0058}
    drawn = real | {"weights_sha256": "a" * 64, "sampler": "ddim, 50 steps", "as_asked": 0.981}
    memory = {
        "pixel-authenticity": {"value": 0.4321, "interval": [0.4, 0.5], "held_out": 0.45},
        "pixel-ct": {"value": -1.5, "interval": None, "held_out": None},
    }
    other = {"num": 64, "memory": memory, "weights_sha256": "b" * 64, "sampler": "ddim, 50 steps"}
    found = {"mnist": {"real images": real, "zoo:x": drawn}, "npz:y": {"zoo:y": other}}
    text = quality.page(found, ["zoo:z"])
    assert "Not measured yet: zoo:z." in text and "Not measured" not in quality.page(found, [])
    assert "| zoo:x | 0.0123 | 9.5 | 0.9 | 0.8 | 97.0% | 0.58% | 98.1% |" in text
    assert "| real images | 0.0123 | 9.5 | 0.9 | 0.8 | 97.0% | 0.58% |  |" in text
    assert "| pixel-authenticity | 0.4321 | 0.4 to 0.5 | 0.45 |" in text
    assert "| pixel-ct | -1.5 |  |  |" in text and "zoo:y more than a copy" in text
    assert "Weights bbbbbbbbbbbb; ddim, 50 steps" in text and "figures/zoo-y.png" in text


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist"])
def test_scores_are_found_by_the_names_of_each_classifier(
    tmp_path, monkeypatch, source: str
) -> None:
    quality = script("docs/quality")
    prefix = source.replace("_", "-")

    def evaluate(*words: str) -> None:
        assert words[0] == "evaluate" and words[words.index("--features") + 1] == source
        metrics = [f"{prefix}-{name}" for name in ("frechet", "is", "precision", "recall")]
        scores = [{"metric": name, "value": float(i)} for i, name in enumerate(metrics)]
        write_json(tmp_path / "scores.json", {"scores": scores, "classes": {"confident": 0.5}})

    monkeypatch.setattr(quality, "run", evaluate)
    found = quality.scores(tmp_path, "images", source, 100, "torch", [])
    assert found["scores"] == {"fid": 0, "is": 1, "precision": 2, "recall": 3}


def test_what_was_measured_of_the_same_weights_is_not_measured_again(tmp_path, monkeypatch) -> None:
    quality = script("docs/quality")
    scores = {"fid": 0.25, "is": 9.0, "precision": 0.9, "recall": 0.8}
    record = {"num": 100, "scores": scores, "readable": 0.9, "border": 0.01}
    records = {f"real-{source}-100": record for source in quality.SCORED}
    for name in quality.zoo_names():
        key = quality.drawn_record(tmp_path, name, quality.count("mnist", 100)).stem
        records[key] = record | {"weights_sha256": "a" * 64, "sampler": "ddim, 50 steps"}
    write_json(tmp_path / "kept.json", records)
    monkeypatch.setattr(quality, "KEPT", tmp_path / "kept.json")
    monkeypatch.setattr(quality, "DOCS", tmp_path)
    monkeypatch.setattr(quality, "README", tmp_path / "README.md")
    quality.README.write_text("# A\n\n<!-- zoo:begin -->\n<!-- zoo:end -->\n\nZ\n")
    monkeypatch.setattr(quality, "front", lambda folder: b"png")
    monkeypatch.setattr(quality, "run", lambda *words: pytest.fail(f"measured again: {words}"))
    monkeypatch.setattr("sys.argv", ["quality.py", str(tmp_path / "work"), "--num", "100"])
    quality.main()
    text = (tmp_path / "zoo.md").read_text()
    scored = [name for name in quality.zoo_names() if "mnist" in name]
    assert len(scored) == 4 and all(f"| zoo:{name} | 0.25 |" in text for name in scored)
    assert "Not measured" not in text and read_json(tmp_path / "kept.json") == records
    table = quality.README.read_text()
    assert table.startswith("# A\n\n<!-- zoo:begin -->\n| 100 images of digits | mnist-frechet |")
    assert table.count("| 0.25 | 9 | 0.9 | 0.8 |") == 4 and "(ddim, 50 steps)" in table


@pytest.mark.parametrize(
    ("moved", "said"), [(0, "no pixel differs"), (2, "difference: at most 2 of 255 levels")]
)
def test_the_front_picture_says_how_far_the_panels_lie_apart(
    tmp_path, monkeypatch, moved: int, said: str
) -> None:
    quality = script("docs/quality")

    def sample(*words: str) -> None:
        out, panel = Path(words[-1]), words[words.index("--backend") + 1]
        out.mkdir(parents=True)
        for i in range(quality.GRID):
            pixels = np.full((28, 28), i, np.uint8)
            pixels[3, 4] += moved * (panel == "jittor" and i == 63)
            Image.fromarray(pixels).save(out / f"{i:05d}.png")
        card = {"solver": "ddim", "steps": 50, "num": quality.GRID, "complete": True}
        write_json(out / "manifest.json", card)

    shown: list[Any] = []
    monkeypatch.setattr(quality, "run", sample)
    monkeypatch.setattr(
        quality, "side_by_side", lambda gallery, colours: shown.append(gallery) or b"png"
    )
    assert quality.front(tmp_path) == b"png"
    [gallery] = shown
    assert gallery.caption == quality.same(f"zoo:{quality.FRONT}, ddim, 50 steps")
    assert [each.title for each in gallery.pictures] == [
        *(quality.same(title) for title in quality.PANELS.values()), quality.same(said)
    ]  # fmt: skip


def test_emoji_on_white_and_one_in_ten_held_out(tmp_path, monkeypatch) -> None:
    emoji = script("tools/emoji")

    def png(level: int) -> bytes:
        half = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
        half.paste((level, 0, 0, 255), (0, 0, 4, 4))
        written = BytesIO()
        half.save(written, "PNG")
        return written.getvalue()

    drawn = emoji.picture(png(200), 4)
    assert drawn.shape == (4, 4, 3)
    assert (drawn[0] == 255).all() and (drawn[1:3, 2:] == 255).all()
    assert (drawn[1:3, :2] == (200, 0, 0)).all()
    levels = [*range(100, 125), 124]  # the last two are one picture under two names
    found = [(i % 9, png(level)) for i, level in enumerate(levels)]
    monkeypatch.setattr(emoji, "pngs", lambda font, listed: found)
    for file in ("font.ttf", "list.txt"):
        (tmp_path / file).write_bytes(b"")
    words = ["emoji", "--out", str(tmp_path / "e.npz"), "--size", "4", "--list",
             str(tmp_path / "list.txt"), "--font"]  # fmt: skip
    monkeypatch.setattr("sys.argv", [*words, str(tmp_path / "font.ttf")])
    emoji.main()
    of_level = {level: i % 9 for i, level in reversed(list(enumerate(levels)))}
    seen = set()
    for file, count in (("e.npz", 22), ("e-test.npz", 3)):
        images, labels = read_npz(tmp_path / file)
        assert images.shape == (count, 3, 4, 4) and labels is not None
        reds = images[:, 0, 1, 0].tolist()
        assert labels.tolist() == [of_level[red] for red in reds]
        seen.update(reds)
    assert len(seen) == 25
    monkeypatch.setattr("sys.argv", [*words, str(tmp_path / "none.ttf")])
    with pytest.raises(SystemExit, match="fonts-noto-color-emoji"):
        emoji.main()


def test_emoji_are_found_in_a_font_singly_and_as_ligatures(tmp_path, monkeypatch) -> None:
    """Leave out what the font lacks, and pass over the emoji sign in a sequence."""
    emoji = script("tools/emoji")
    ligature = SimpleNamespace(Component=["p"], LigGlyph="np")
    lookup = SimpleNamespace(SubTable=[SimpleNamespace(ligatures={"n": [ligature]})])
    glyphs = {name: SimpleNamespace(imageData=name.encode()) for name in ("smile", "np")}
    tables = {"CBDT": SimpleNamespace(strikeData=[glyphs]), "GSUB": SimpleNamespace(
        table=SimpleNamespace(LookupList=SimpleNamespace(Lookup=[lookup])))}  # fmt: skip

    class Font(dict):  # type: ignore[type-arg]
        def getBestCmap(self) -> dict[int, str]:
            return {0x263A: "smile", 0x1F1F3: "n", 0x1F1F5: "p", 0x1F44B: "wave"}

    monkeypatch.setattr(emoji, "TTFont", lambda path: Font(tables))
    found = [(0, (0x263A,)), (1, (0x1F44B,)), (8, (0x1F1F3, 0x1F1F5)), (8, (0x1F1F5, 0x1F1F3))]
    monkeypatch.setattr(emoji, "sequences", lambda path: iter(found))
    assert emoji.pngs(tmp_path, tmp_path) == [(0, b"smile"), (8, b"np")]


def test_emoji_have_the_groups_of_unicode_and_no_skin_tones(tmp_path) -> None:
    emoji = script("tools/emoji")
    (tmp_path / "list.txt").write_text(
        "# group: Smileys & Emotion\n\n# subgroup: face-smiling\n"
        "1F600        ; fully-qualified # grinning face\n"
        "263A FE0F    ; fully-qualified # smiling face\n"
        "263A         ; unqualified     # smiling face\n"
        "# group: People & Body\n"
        "1F44B        ; fully-qualified # waving hand\n"
        "1F44B 1F3FB  ; fully-qualified # waving hand: light skin tone\n"
        "# group: Component\n"
        "1F3FB        ; component       # light skin tone\n"
        "# group: Flags\n"
        "1F1F3 1F1F5  ; fully-qualified # flag: Nepal\n"
    )
    assert list(emoji.sequences(tmp_path / "list.txt")) == [
        (0, (0x1F600,)), (0, (0x263A,)), (1, (0x1F44B,)), (8, (0x1F1F3, 0x1F1F5)),
    ]  # fmt: skip


def test_a_model_of_the_zoo_is_stored_in_half_precision(tmp_path, monkeypatch, capsys) -> None:
    """Its manifest names the rounded weights, which are those that are found there."""
    run = train("tiny", tmp_path / "run", set={"data.source": "mnist-10k", "train.steps": 2})
    put = script("docs/zoo")
    monkeypatch.setattr(put, "ZOO", tmp_path / "zoo")
    monkeypatch.setattr(find, "zoo_folder", lambda: tmp_path / "zoo")
    monkeypatch.setattr("sys.argv", ["zoo.py", str(run.path), "mine"])
    put.main()
    found = find.find_weights("zoo:mine", None, False)
    manifest = read_json(tmp_path / "zoo/mine/manifest.json")
    assert found.facts()["weights_sha256"] == manifest["weights_sha256"]
    trained = find.find_weights(str(run.path), None, False).weights
    for name, array in found.weights.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, trained[name].astype(np.float16))
    assert any((found.weights[name] != trained[name]).any() for name in trained)
    size = (tmp_path / "zoo/mine/ema.safetensors").stat().st_size
    assert size < 2.2 * sum(array.size for array in trained.values())
    guided = ["--guidance", "2", "--guidance-interval", "9-99"]
    monkeypatch.setattr("sys.argv", ["zoo.py", str(run.path), "mine/guide", *guided])
    put.main()
    sampler = find.find_weights("zoo:mine").sampler
    assert sampler == put.SAMPLER | {
        "guide": "zoo:mine/guide", "guidance": 2.0, "guidance_interval": "9-99"
    }  # fmt: skip
    assert find.find_weights("zoo:mine/guide").sampler is None and find.zoo_names() == ["mine"]
    assert "zoo:mine/guide" in (tmp_path / "zoo/mine/README.md").read_text()
    for wrong in ("other/guide", "mine/other"):
        monkeypatch.setattr("sys.argv", ["zoo.py", str(run.path), wrong])
        with pytest.raises(SystemExit, match="where NAME is in the zoo"):
            put.main()


def test_found_timesteps_stand_beside_ddim(tmp_path, monkeypatch) -> None:
    """Each model is drawn once; a difference is found minus DDIM, and what is missing is named."""
    scores = script("docs/scores")
    asked: list[tuple[str, ...]] = []

    def evaluate(*words: str) -> None:
        asked.append(words)
        found = "--spacing" in words
        sampler = {"sampler.steps": 5 if found else 50, "sampler.order": 2 if found else None}
        values = [0.1, 0.11, 0.12] if found else [0.3, 0.31, 0.33]
        monkeypatch.setitem(WEIGHTS, "torch", scores.weights_of(names[0]))
        make_scores(Path(words[-1]), "torch", {"mnist-frechet": values}, num=100, **sampler)

    monkeypatch.setattr(scores, "diptych", evaluate)
    monkeypatch.setattr(scores, "RECORDS", tmp_path / "records")
    names = scores.searched()
    assert {"mnist-conditional", "mnist-torch", "fashion-mnist"} <= set(names)
    for _ in range(2):
        scores.few(tmp_path, names[0], 100)
    assert len(asked) == 2 and [f"zoo:{names[0]}" in words for words in asked] == [True, True]
    lines, missing = scores.few_part()
    text = "\n".join(lines)
    assert "3 sets of 100 images each" in text and "| 0.11 | 0.3133 | -0.203 (-0." in text
    assert missing == [f"zoo:{name}" for name in names[1:]]
    assert f"Not measured yet: {', '.join(missing)}." in text


def test_records_of_solvers_are_kept_and_gone_on_with(tmp_path, monkeypatch) -> None:
    """In another folder the kept cells are there before the sweep begins, and none is ever lost."""
    scores = script("docs/scores")
    there: list[set[str]] = []

    def diptych(*words: str) -> None:
        cells = Path(words[words.index("--out") + 1]) / "cells"
        there.append({path.name for path in cells.glob("*")})
        if len(there) != 3:
            cells.mkdir(parents=True, exist_ok=True)
            write_json(cells / f"{len(there)}.json", {})
        raise KeyboardInterrupt

    monkeypatch.setattr(scores, "diptych", diptych)
    monkeypatch.setattr(scores, "RECORDS", tmp_path / "records")
    assert scores.solver_records() is None
    for folder, num in (("a", 10), ("b", 10), ("c", 20), ("a", 10)):
        with pytest.raises(KeyboardInterrupt):
            scores.sweep(tmp_path / folder, ["ddim"], "5", num)
    assert there == [set(), {"1.json"}, set(), {"1.json", "2.json"}]
    found = scores.solver_records()
    assert found is not None and found.name.endswith("-10")  # none of 20 images was measured
    assert {path.name for path in (found / "cells").iterdir()} == {"1.json", "2.json", "4.json"}
    monkeypatch.setattr("sys.argv", ["scores.py", "write"])
    monkeypatch.setattr(scores, "RECORDS", tmp_path / "none")
    with pytest.raises(SystemExit):
        scores.main()


def test_what_was_scored_with_as_many_images_is_not_scored_again(tmp_path, monkeypatch) -> None:
    scores = script("docs/scores")
    asked: list[str] = []
    monkeypatch.setattr(scores, "RECORDS", tmp_path)
    monkeypatch.setattr(scores, "diptych", lambda *words: asked.append(words[0]))
    monkeypatch.setitem(WEIGHTS, "torch", scores.weights_of("mnist-torch"))
    for name, values in (("whole", [0.1]), ("sets", [0.1, 0.2, 0.3])):
        path = scores.zoo_record("torch", "ddim", name)
        make_scores(path, "torch", {"mnist-frechet": values}, num=100 // len(values))
    scores.score_model(tmp_path / "images", "torch", "ddim", 100)
    assert asked == []
    scores.score_model(tmp_path / "images", "torch", "ddim", 101)
    assert asked == ["sample", "evaluate", "evaluate"]


def test_scores_of_other_weights_count_as_none(tmp_path, monkeypatch) -> None:
    scores = script("docs/scores")
    monkeypatch.setattr(scores, "RECORDS", tmp_path)
    held = scores.weights_of("mnist-torch")
    for panel, sha in (("torch", held), ("jittor", "0" * 64)):
        monkeypatch.setitem(WEIGHTS, panel, sha)
        for name in ("whole", "sets"):
            path = scores.zoo_record(panel, "ddim", name)
            make_scores(path, panel, {"mnist-frechet": [0.1, 0.2, 0.3]}, num=30)
    text = "\n".join(scores.zoo_part("ddim"))
    assert f"(sha256): torch {held[:12]}.\n" in text and "jittor" not in text
    assert scores.zoo_part("ddpm") == []
    old = (Path(scores.DOCS) / "scores.md").read_text("utf-8")
    new = scores.page(old)
    for heading in ("Quality against", "Timesteps found"):  # without records, they stay
        assert scores.section(new, heading) == scores.section(old, heading) != []
    assert f"(sha256): torch {held[:12]}.\n" in new and ", ddpm: not scored yet" in new
