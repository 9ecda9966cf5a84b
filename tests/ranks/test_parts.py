"""Parts of a job give the folder of one process, whoever computes them and whenever."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from commands import call
from diptych.data import Dataset
from diptych.errors import UserError
from diptych.evaluation.nearest import Nearest
from diptych.files import LOCK, hold, read_json, write_json
from diptych.files.locks import hold_part
from diptych.generate import encode as encoding
from diptych.generate import samples
from diptych.generate.encode import encode_to
from diptych.generate.inputs import Inputs
from diptych.generate.roundtrip import EncodeRequest
from diptych.generate.samples import SampleRequest, sample_to
from diptych.ranks import ALONE, Part, Ranks
from diptych.sampling.inversion import make_inversion
from diptych.sampling.sampler import make_sampler
from numpy_backend import CONFIG, NumpyBackend, engine
from waiting import PATIENCE

REQUEST = SampleRequest(make_sampler("ddim", 2), num=7, batch=2)


class Toy:
    """A model on NumPy arrays."""

    def __init__(self) -> None:
        self.engine, self.backend = engine()
        self.backend.describe = lambda: {"backend": "numpy"}  # type: ignore[attr-defined]
        self.config = CONFIG
        self.facts = {"weights_sha256": "ab" * 32}
        self.guide_facts = lambda sampler: {"guide_sha256": None}


def draw(out: Path, part: str | None = None, request: SampleRequest = REQUEST, **how: bool) -> bool:
    """Draw a part, or all; True if the folder is complete after it."""
    own = Part.parse(part) if part else None
    model = Toy()
    manifest = sample_to(model, request, out, part=own, progress=False, **how)  # type: ignore[arg-type]
    return bool(manifest["complete"])


def pictures(out: Path) -> dict[str, bytes]:
    """Every file, but for the manifest, which holds times."""
    return {p.name: p.read_bytes() for p in out.iterdir() if p.name != "manifest.json"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert draw(out, npz=True)
    return out


@pytest.mark.parametrize("order", [["0/3", "1/3", "2/3"], ["2/3", "0/3", "2/3", "1/3"]])
def test_parts_give_the_folder_of_one_process(whole, tmp_path, order):
    """In any order, and with one part done twice."""
    done = [draw(tmp_path, part, npz=True) for part in order]
    assert done == [False] * (len(order) - 1) + [True]
    assert pictures(tmp_path) == pictures(whole)
    manifests = [read_json(out / "manifest.json") for out in (tmp_path, whole)]
    assert manifests[0].keys() == manifests[1].keys()
    assert manifests[0]["images_timed"] == 7
    assert draw(tmp_path, "1/3")  # once more: nothing is to be done
    assert pictures(tmp_path) == pictures(whole)


def test_more_parts_than_batches(whole, tmp_path):
    assert [draw(tmp_path, f"{k}/6", npz=True) for k in range(6)] == [False] * 5 + [True]
    assert pictures(tmp_path) == pictures(whole)


def test_parts_at_once_complete_the_folder_once(whole, tmp_path):
    """Four processes at the same time, eight times over: none fails, and one completes it."""
    started = multiprocessing.get_context("fork")
    for attempt in range(8):
        out = tmp_path / str(attempt)
        work = [
            started.Process(target=draw, args=(out, f"{k}/4"), kwargs={"npz": True})
            for k in range(4)
        ]
        for process in work:
            process.start()
        for process in work:
            process.join(PATIENCE)
        assert [process.exitcode for process in work] == [0] * 4
        assert pictures(out) == pictures(whole)
        assert read_json(out / "manifest.json")["complete"]


def test_a_killed_part_is_finished_by_the_next(whole, tmp_path):
    """Leftovers of a killed process: its images, its lock file, a temporary file."""
    draw(tmp_path, "0/2", npz=True)
    shutil.copy(whole / "00002.png", tmp_path)
    (tmp_path / f".part-1-of-2{LOCK}").touch()
    (tmp_path / ".00003.png.4194304.tmp").touch()
    assert draw(tmp_path, "1/2", npz=True)
    assert pictures(tmp_path) == pictures(whole)


def test_a_folder_in_parts_can_be_finished_by_one_process(whole, tmp_path):
    draw(tmp_path, "1/2")
    assert draw(tmp_path, resume=True, npz=True)
    assert pictures(tmp_path) == pictures(whole)


def test_what_does_not_fit_is_refused(whole, tmp_path):
    draw(tmp_path, "0/2")
    before = pictures(tmp_path)
    for part, words in (("0/3", "begun in 2 parts, not 3"), ("1/2", "num=7, not 8")):
        request = REQUEST if part == "0/3" else SampleRequest(REQUEST.sampler, num=8, batch=2)
        with pytest.raises(UserError, match=words):
            draw(tmp_path, part, request)
    with pytest.raises(UserError, match="overwrite"):
        draw(tmp_path, "1/2", overwrite=True)
    with pytest.raises(UserError, match="other pictures"):
        draw(tmp_path, "1/2", npz=True)
    with hold_part(tmp_path, "part-1-of-2"):
        with pytest.raises(UserError, match="another process is at work"):
            draw(tmp_path, "1/2")
        with pytest.raises(UserError, match="another process is at work"):
            draw(tmp_path, resume=True)
    with hold(tmp_path), pytest.raises(UserError, match="another process is at work"):
        draw(tmp_path, "1/2")
    assert pictures(tmp_path) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "somebody's").touch()
    with pytest.raises(UserError, match="not empty"):
        draw(tmp_path / "other", "0/2")


def test_parts_add_nothing_to_a_complete_folder_and_say_so(tmp_path):
    assert draw(tmp_path)
    with pytest.raises(UserError, match="without npz as asked for here; add it with --resume"):
        draw(tmp_path, "0/2", npz=True)
    assert draw(tmp_path, resume=True, npz=True)
    assert draw(tmp_path, "0/2", npz=True)


def test_parts_notice_that_neighbours_were_searched_otherwise(tmp_path):
    images = np.random.RandomState(3).randint(0, 256, (9, 1, 14, 14), dtype=np.uint8)
    data = Dataset("nine", "train", images, None, "ab" * 32, "here")
    five, three = (replace(REQUEST, nearest=Nearest(data, count)) for count in (5, 3))
    assert draw(tmp_path, request=five) and draw(tmp_path, "0/2", five) and draw(tmp_path, "0/2")
    with pytest.raises(UserError, match="without nearest as asked for here; add it with --resume"):
        draw(tmp_path, "0/2", three)
    assert draw(tmp_path, request=three, resume=True) and draw(tmp_path, "0/2", three)
    assert draw(tmp_path, resume=True)  # the file stays, and so does the record of its settings
    with pytest.raises(UserError, match="without nearest as asked"):
        draw(tmp_path, "0/2", five)


def test_parts_that_choose_different_batches_take_that_of_the_first(whole, tmp_path, monkeypatch):
    """As two GPUs with unlike free memory do, if both begin before there is a folder."""
    automatic = SampleRequest(REQUEST.sampler, num=7, batch=None)
    monkeypatch.setattr(Toy, "batch", lambda self, guided: self.chosen, raising=False)
    monkeypatch.setattr(Toy, "chosen", 2, raising=False)
    begun = samples.join

    def later(out: Path, *given: object) -> None:
        monkeypatch.setattr(samples, "join", begun)
        assert not draw(out, "0/2", automatic)  # the other part, between our choice and our join
        begun(out, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(samples, "join", later)
    monkeypatch.setattr(Toy, "batch", lambda self, guided: 3 if samples.join is later else 2)
    assert draw(tmp_path, "1/2", automatic)
    assert read_json(tmp_path / "manifest.json")["batch"] == 2
    assert pictures(tmp_path) == {k: v for k, v in pictures(whole).items() if k != "images.npz"}


def test_a_kill_before_the_records_are_removed_counts_no_image_twice(tmp_path, monkeypatch):
    draw(tmp_path, "0/2")
    monkeypatch.setattr(samples, "remove_records", lambda out: None)
    assert draw(tmp_path, "1/2")
    monkeypatch.undo()
    assert draw(tmp_path, "1/2") and draw(tmp_path, resume=True)
    assert read_json(tmp_path / "manifest.json")["images_timed"] == 7
    assert not list(tmp_path.glob("part-*"))


def encode(
    out: Path, part: str | None = None, images: int = 7, curve: tuple[int, ...] = (), **how: bool
) -> bool:
    """Encode a part, or all; True if the folder is complete after it."""
    pixels = np.random.RandomState(3).randint(0, 256, (images, 1, 14, 14), dtype=np.uint8)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    inputs = Inputs(pixels, "seven images", digest)
    request = EncodeRequest(inputs, make_inversion(2), tuple(map(make_inversion, curve)), batch=2)
    own = Part.parse(part) if part else None
    found = encode_to(Toy(), request, out, part=own, progress=False, **how)  # type: ignore[arg-type]
    return bool(found["complete"])


@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("encoded") / "out"
    assert encode(out)
    return out


@pytest.mark.parametrize("order", [["0/3", "1/3", "2/3"], ["2/3", "0/3", "2/3", "1/3"]])
def test_parts_encode_the_folder_of_one_process(encoded, tmp_path, order):
    done = [encode(tmp_path, part) for part in order]
    assert done == [False] * (len(order) - 1) + [True]
    assert pictures(tmp_path) == pictures(encoded)
    assert (tmp_path / "latents.safetensors").is_file() and not (tmp_path / "parts").exists()
    errors = [read_json(out / "manifest.json")["mse"] for out in (tmp_path, encoded)]
    assert errors[0] == errors[1]
    assert encode(tmp_path, "1/3") and pictures(tmp_path) == pictures(encoded)


def test_an_encoding_in_parts_is_finished_or_refused(encoded, tmp_path):
    """One process finishes what is begun; other parts, images and --overwrite are refused."""
    assert not encode(tmp_path, "1/2")
    for part, images, words in (("0/3", 7, "begun in 2 parts, not 3"), ("0/2", 8, "images_sha256")):
        with pytest.raises(UserError, match=words):
            encode(tmp_path, part, images)
    with pytest.raises(UserError, match="overwrite"):
        encode(tmp_path, "0/2", overwrite=True)
    with hold_part(tmp_path, "part-0-of-2"), pytest.raises(UserError, match="at work"):
        encode(tmp_path, "0/2")
    (tmp_path / "parts" / ".00000.npz.4194304.tmp").touch()  # of a killed part
    assert encode(tmp_path, resume=True)
    assert pictures(tmp_path) == pictures(encoded)


def test_pictures_in_a_folder_without_a_manifest_are_neither_taken_nor_replaced(tmp_path):
    """A user's own 00000.png was taken for a sample, and replaced by a reconstruction."""
    picture = tmp_path / "00000.png"
    picture.write_bytes(b"somebody's")
    for job in (draw, encode):
        for how in ({"resume": True}, {"part": "0/2"}, {"part": "0/2", "resume": True}):
            with pytest.raises(UserError, match="of a job to go on with"):
                job(tmp_path, **how)
    left = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert left == ["00000.png"] and picture.read_bytes() == b"somebody's"


def test_an_encoding_has_one_precision(tmp_path, monkeypatch):
    """A model opened in bf16 from Python says so, and adds nothing to latents of float32."""
    assert not encode(tmp_path, "0/2")
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["precision"] == "fp32"
    monkeypatch.setattr(NumpyBackend, "precision", "bf16")
    for how in ({"part": "1/2"}, {"resume": True}):
        with pytest.raises(UserError, match="begun with precision=fp32, not bf16; go on with"):
            encode(tmp_path, **how)
    assert encode(tmp_path / "new")
    assert read_json(tmp_path / "new" / "manifest.json")["precision"] == "bf16"
    monkeypatch.undo()
    del manifest["precision"]  # as before it was recorded
    write_json(tmp_path / "manifest.json", manifest)
    assert encode(tmp_path, "1/2")


def test_parts_measure_one_curve_and_a_finished_one_is_not_taken_for_another(tmp_path):
    assert not encode(tmp_path, "0/2", curve=(3,))
    with pytest.raises(UserError, match="give each part the same options"):
        encode(tmp_path, "1/2", curve=(4,))
    assert encode(tmp_path, "1/2", curve=(3,)) and encode(tmp_path, "0/2", curve=(3,))
    with pytest.raises(UserError, match="complete, without a curve of 4 steps as asked"):
        encode(tmp_path, "0/2", curve=(3, 4))
    assert encode(tmp_path, resume=True, curve=(4,)) and encode(tmp_path, "0/2", curve=(3, 4))


def test_an_encoding_killed_while_it_is_completed_is_gone_on_with_in_parts(
    encoded, tmp_path, monkeypatch
):
    assert not encode(tmp_path, "0/2")
    monkeypatch.setattr(encoding, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path, "1/2")
    monkeypatch.undo()
    assert encode(tmp_path, "1/2")
    assert pictures(tmp_path) == pictures(encoded)


def test_parts_that_encode_at_once_complete_the_folder_once(encoded, tmp_path):
    started = multiprocessing.get_context("fork")
    for attempt in range(4):
        out = tmp_path / str(attempt)
        work = [started.Process(target=encode, args=(out, f"{k}/4")) for k in range(4)]
        for process in work:
            process.start()
        for process in work:
            process.join(PATIENCE)
        assert [process.exitcode for process in work] == [0] * 4
        assert pictures(out) == pictures(encoded)


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "a/b", "0/0", "1/2/3", ""])
def test_a_part_is_k_of_n(text):
    with pytest.raises(UserError, match="K/N"):
        Part.parse(text)


def test_a_rank_is_a_part():
    assert Part.of(Ranks(1, 3, 1, "torchrun")) == Part(1, 3)
    assert Part.of(ALONE) is None


def test_the_commands_join_a_begun_folder_and_say_what_is_missing(tmp_path, monkeypatch, capsys):
    found = SimpleNamespace(config=CONFIG, sampler=None, note=None)
    monkeypatch.setattr("diptych.weights.find.find_weights", lambda *_: found)
    monkeypatch.setattr("diptych.model.load", lambda *_, **__: Toy())
    images = tmp_path / "images.npz"
    np.savez(images, images=np.zeros((4, 14, 14, 1), dtype=np.uint8))
    out, latents = tmp_path / "out", tmp_path / "latents"
    draws = ["sample", "toy", "--num", 4, "--solver", "ddim", "--out", out]
    encodes = ["encode", images, "--model", "toy", "--out", latents]
    for words, place, made in ((draws, out, "4 images"), (encodes, latents, "4 latents")):
        words += ["--steps", 2, "--batch", 2, "--quiet", "--backend", "torch"]
        first = call(monkeypatch, capsys, *words, "--part", "0/2")
        assert first[:2] == (0, f"part 0 of 2 is done, others are not: {place}\n"), first
        alone = call(monkeypatch, capsys, *words, "--part", "1/2", "--overwrite")
        assert alone[0] == 2 and "--overwrite would delete the other parts' work" in alone[2], alone
        alone = call(monkeypatch, capsys, *words)
        assert alone[0] == 2 and "--resume" in alone[2], alone
        code, text, err = call(monkeypatch, capsys, *words, "--part", "1/2")
        assert code == 0 and text.startswith(f"{made} in {place}, "), err
