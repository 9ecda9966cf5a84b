"""Downloads from a server on this machine: complete and correct, or not under their name at all."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

import photos
from commands import call
from data_files import NAMES, bare_machine, idx  # noqa: F401  (a fixture)
from diptych.data import SOURCES, find, load_dataset
from diptych.data.readers import cifar10
from diptych.data.sources import download
from diptych.data.sources.registry import File
from diptych.errors import MachineError, UserError

RNG = np.random.default_rng(1)
CONTENT = {
    NAMES[0]: idx(RNG.integers(0, 256, (400, 28, 28), dtype=np.uint8)),
    NAMES[1]: idx(RNG.integers(0, 10, 400, dtype=np.uint8)),
}


@dataclass
class Server:
    """A server: its files, its misbehaviour, and the requests it got."""

    files: dict[str, bytes]
    url: str = ""
    ranges: bool = True
    cut: int | None = None  # hang up after so many bytes of an answer, once
    asked: list[tuple[str, str | None]] = field(default_factory=list)


def handler(state: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            data = state.files.get(self.path.rsplit("/", 1)[1])
            if data is None:
                return self.send_error(404)
            start = int(wanted[6:-1]) if wanted and state.ranges else 0
            if start >= len(data):
                return self.send_error(416)
            self.send_response(206 if wanted and state.ranges else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            end = len(data) if state.cut is None else start + state.cut
            state.cut = None
            self.wfile.write(data[start:end])

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def server(bare, monkeypatch) -> Iterator[Server]:
    """Serves a small MNIST, which the table of sources is made to expect; an own cache."""
    state = Server({f"{name}.gz": gzip.compress(data) for name, data in CONTENT.items()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(state)) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        files = tuple(File(n, hashlib.sha256(d).hexdigest()) for n, d in CONTENT.items())
        mnist = replace(SOURCES["mnist"], splits={"train": files}, mirrors=(f"{state.url}/a/",))
        monkeypatch.setitem(SOURCES, "mnist", mnist)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield state
        httpd.shutdown()
        thread.join()


@pytest.fixture
def cache(bare) -> Path:
    return bare / "XDG_CACHE_HOME" / "diptych" / "data" / "mnist"


def stored(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} - {".lock"}


def test_a_download_is_kept_and_not_repeated(server, cache, capfd):
    data = load_dataset("mnist")
    assert len(data.images) == 400 and data.origin == f"{cache} (downloaded)"
    assert stored(cache) == set(NAMES)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err.count("downloading http://127.0.0.1") == 2
    again = load_dataset("mnist", download=False)
    assert again.sha256 == data.sha256 and len(server.asked) == 2


def test_another_gzip_container_with_the_same_content_is_right(server):
    server.files = {f"{n}.gz": gzip.compress(d, 1, mtime=7) for n, d in CONTENT.items()}
    assert len(load_dataset("mnist").images) == 400


WRONG = {
    "another content": (
        gzip.compress(CONTENT[NAMES[0]][:-1] + b"x"),
        "the sha256 of the content is not the published one",
    ),
    "HTML": (b"<html>log in first</html>", "it sent something else than a gzip file"),
    "cut": (gzip.compress(CONTENT[NAMES[0]])[:-9], "it sent something else than a gzip file"),
    "nothing": (None, "HTTP 404"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_never_gets_the_name(server, cache, case):
    content, fault = WRONG[case]
    server.files.pop(f"{NAMES[0]}.gz")
    if content is not None:
        server.files[f"{NAMES[0]}.gz"] = content
    with pytest.raises(UserError, match=re.escape(f"/a/{NAMES[0]}.gz: {fault}")) as caught:
        load_dataset("mnist", settable=True)
    text = str(caught.value)
    assert "\n" not in text and str(cache) in text and f"{NAMES[0]}.gz and {NAMES[1]}.gz" in text
    assert "--data DATA" in text and "mnist-10k" in text
    assert stored(cache) == set() and find("mnist") is None


def test_the_second_mirror_is_tried_when_the_first_fails(server, monkeypatch):
    mirrors = ("http://127.0.0.1:9/", *SOURCES["mnist"].mirrors)
    monkeypatch.setitem(SOURCES, "mnist", replace(SOURCES["mnist"], mirrors=mirrors))
    assert len(load_dataset("mnist").images) == 400


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on_where_it_stopped(server, cache, ranges):
    """It begins again if the server knows no ranges, and is right all the same."""
    server.ranges, server.cut = ranges, 100_000
    with pytest.raises(UserError, match="connection broken"):
        load_dataset("mnist")
    assert stored(cache) == {f"{NAMES[0]}.gz.part"}
    kept = (cache / f"{NAMES[0]}.gz.part").stat().st_size
    assert 0 < kept <= 100_000 and find("mnist") is None
    assert len(load_dataset("mnist").images) == 400
    assert server.asked[1] == (f"/a/{NAMES[0]}.gz", f"bytes={kept}-")
    assert stored(cache) == set(NAMES)


@pytest.mark.parametrize("left", [b"rubbish", b"rubbish" * 100_000])
def test_a_part_file_of_something_else_is_begun_again(server, cache, left):
    cache.mkdir(parents=True)
    (cache / f"{NAMES[0]}.gz.part").write_bytes(left)
    (cache / "tmp0abc").write_bytes(b"what a killed process was unpacking")
    assert len(load_dataset("mnist").images) == 400
    assert stored(cache) == set(NAMES)
    assert [wanted for _, wanted in server.asked] == [f"bytes={len(left)}-", None, None]


def test_a_part_file_that_is_already_whole_is_used(server, cache):
    cache.mkdir(parents=True)
    (cache / f"{NAMES[0]}.gz.part").write_bytes(server.files[f"{NAMES[0]}.gz"])
    assert len(load_dataset("mnist").images) == 400
    assert len(server.asked) == 2


def test_two_at_once_download_once(server):
    with ThreadPoolExecutor(2) as pool:
        sets = list(pool.map(lambda _: load_dataset("mnist"), range(2)))
    assert sets[0].sha256 == sets[1].sha256 and len(server.asked) == 2


def test_without_a_network_the_error_says_what_to_put_where(server, cache, monkeypatch):
    def offline(*_: object, **__: object) -> None:
        raise __import__("requests").ConnectionError("no route to host")

    monkeypatch.setattr("requests.get", offline)
    with pytest.raises(UserError, match=r"could not be downloaded \(http.*no connection"):
        load_dataset("mnist")
    with pytest.raises(UserError, match=r"not on this machine and downloading is switched off"):
        load_dataset("mnist", download=False)
    assert server.asked == []


def test_only_a_command_that_can_take_other_images_is_told_of_some(bare, monkeypatch, capsys):
    """Training may; what looks for the images of a trained model needs those and no others."""
    monkeypatch.setitem(SOURCES, "mnist", replace(SOURCES["mnist"], mirrors=(), places=()))
    other = "--set data.source=mnist-10k"
    for words, told in (
        (["train", "mnist"], True),
        (["sample", "zoo:mnist-torch", "--nearest"], False),
        (["data", "info", "mnist"], False),
    ):
        out = [] if words[0] == "data" else ["--out", bare / "out"]
        code, stdout, stderr = call(monkeypatch, capsys, *words, *out)
        assert code == 2 and stdout == "" and "pass --data DATA." in stderr
        assert (other in stderr) is told, stderr


def test_a_full_disk_is_the_machines_fault_and_keeps_the_part(server, cache, monkeypatch):
    def full(part: Path, output: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_unpack", full)
    with pytest.raises(MachineError, match=r"No space left on device.*Make room"):
        load_dataset("mnist")
    assert stored(cache) == {f"{NAMES[0]}.gz.part"}


def test_a_cache_that_cannot_be_made_is_the_machines_fault(server, cache):
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file in the place of the folder")
    with pytest.raises(MachineError, match="cannot be stored"):
        load_dataset("mnist")


@pytest.fixture
def archive(server, monkeypatch, bare) -> bytes:
    """A small CIFAR-10 archive on the server, which the table is made to expect."""
    folder = photos.put_cifar10(bare / "made", packed=True, sums=False)
    whole = (folder / cifar10.PYTHON.archive).read_bytes()
    sums = {cifar10.PYTHON.archive: hashlib.md5(whole).hexdigest()}
    form = replace(
        cifar10.PYTHON, length=len(whole), sha256=hashlib.sha256(whole).hexdigest(), sums=sums
    )
    monkeypatch.setattr(cifar10, "PYTHON", form)
    monkeypatch.setattr(cifar10, "FORMS", (form, cifar10.BINARY))
    monkeypatch.setattr(cifar10, "URL", f"{server.url}/kriz/")
    server.files[form.archive] = whole
    return whole


def test_cifar10_is_fetched_once_and_kept(server, archive, bare):
    data = load_dataset("cifar10")
    place = bare / "XDG_CACHE_HOME" / "diptych" / "data" / "cifar10"
    assert len(data.images) == 40 and data.origin == f"{place} (downloaded)"
    assert stored(place) == {cifar10.PYTHON.archive}
    again = load_dataset("cifar10", "test", download=False)
    assert len(again.images) == 8 and len(server.asked) == 1


def test_an_interrupted_archive_goes_on_and_a_wrong_one_never_gets_the_name(server, archive, bare):
    place = bare / "XDG_CACHE_HOME" / "diptych" / "data" / "cifar10"
    server.cut = 70_000  # a piece is 65,536
    with pytest.raises(UserError, match=r"connection broken.*Put cifar-10-python\.tar\.gz into"):
        load_dataset("cifar10")
    kept = (place / f"{cifar10.PYTHON.archive}.part").stat().st_size
    assert 0 < kept <= 70_000
    assert len(load_dataset("cifar10").images) == 40
    assert server.asked[1][1] == f"bytes={kept}-"
    (place / cifar10.PYTHON.archive).unlink()
    server.files[cifar10.PYTHON.archive] = archive[:-1] + b"x"
    with pytest.raises(UserError, match="the sha256 of the content is not the published one"):
        load_dataset("cifar10")
    assert cifar10.PYTHON.archive not in stored(place)
