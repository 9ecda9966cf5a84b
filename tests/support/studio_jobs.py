"""A studio's server in a thread of the test's process; its workers are processes of their own."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diptych.studio import server
from synthetic_runs import make_rows, make_run
from waiting import PATIENCE, until


class Served:
    """A running studio and requests to it."""

    def __init__(self, studio: server.Studio, port: int) -> None:
        self.studio, self.port = studio, port
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """Status, headers and content (parsed if JSON) of an answer."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        own = {"Content-Type": "application/json"} if data is not None else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.address + path, data, own | named)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                status, got, content = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, got, content = error.code, error.headers, error.read()
        if got.get_content_type() == "application/json":
            content = json.loads(content)
        return status, got, content

    def finished(self, number: int) -> dict[str, Any]:
        """A job after its end."""
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.ask(f"/api/jobs/{number}")[2])
            return found["state"] in ("done", "failed", "stopped")

        until(ended)
        return found


@contextmanager
def serving(folder: Path, token: str | None = None) -> Iterator[Served]:
    """A studio over a folder, ended with the block."""
    studio = server.Studio([folder], "cpu")
    socket = server.bind("127.0.0.1", 0)
    port = socket.getsockname()[1]
    running = server.server_of(studio, token, port)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        yield Served(studio, port)
    finally:
        running.should_exit = True
        thread.join()
        studio.close()
        socket.close()


def two_runs(folder: Path) -> tuple[Path, Path]:
    """Two runs with a grid each, of which one setting differs."""
    found = []
    for k, backend in enumerate(("torch", "jittor")):
        train = {"steps": 300, "lr": 0.001 * (k + 1)}
        run = make_run(folder / backend, backend, make_rows(200, relative=0.01 * k), train=train)
        (run / "grids").mkdir()
        pixels = np.full((32, 32), 60 + 120 * k, np.uint8)
        Image.fromarray(pixels).save(run / "grids" / "step-00000200.png")
        found.append(run)
    return found[0], found[1]
