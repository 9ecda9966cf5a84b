"""The process of one panel, or of the ladder: `python -m diptych.studio.worker torch DEVICE`.

    in    {"id": 3, "kind": "sample", ...}       a job; jobs are done in order
          {"cancel": 3}                           end that job at its next solver step
    out   {"ready": {...}}                        the framework is loaded
          {"id": 3, "progress": {...}}            a step
          {"id": 3, "result": {...}}, {"id": 3, "error": "..."} or {"id": 3, "stopped": true}

It ends with its whole process group when its input ends: with the server, however that ends.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import MachineError, PythonTerms, UserError, one_line
from diptych.studio.messages import line, packed
from diptych.types import Pixels

if TYPE_CHECKING:
    from diptych.model import Model
    from diptych.weights.find import Source

KEPT = 2  # models in memory
SHOWN = 16  # images in a frame of a trajectory
MOST_FRAMES = 100
MOST_BYTES = 8_000_000  # of the frames of one kind


class Stopped(Exception):
    """The user stopped the job."""


class Frames:
    """Images of a trajectory after evenly spread steps, in uint8.

    Attributes:
        steps: the numbers of the kept steps, from 0.
    """

    def __init__(self, steps: int, images: int, shape: tuple[int, ...]) -> None:
        self.images = min(images, SHOWN)
        room = MOST_BYTES // (self.images * int(np.prod(shape)))
        count = max(1, min(steps, MOST_FRAMES, room))
        self.steps = sorted({round(k) for k in np.linspace(0, steps - 1, count)} | {steps - 1})
        self.x: list[Pixels] = []
        self.x0: list[Pixels] = []


def implied_between(found: Source, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the sampler that draws between two seeds: the model's own if that is DDIM.

    Without its guide, for which the page has no field there.
    """
    from diptych.sampling.options import GUIDED

    implied: dict[str, Any] = {"solver": "ddim"}
    if found.sampler and found.sampler.get("solver") == "ddim":
        left_out = GUIDED if "guide" in found.sampler else ()
        implied = {name: value for name, value in found.sampler.items() if name not in left_out}
    if found.config.model.num_classes and not settings.get("classes"):
        implied["guidance"] = 0.0  # the images differ by their noise alone
    return implied


class Worker:
    """One panel with its newest models."""

    def __init__(self, panel: str, device: str, say: Callable[..., None]) -> None:
        from diptych import backends

        self.panel, self.device, self.say = panel, device, say
        self.models: dict[str, Model] = {}
        self.stopped: set[int] = set()
        self.backend = backends.load(panel, device)

    def facts(self) -> dict[str, Any]:
        """The panel's facts for the page."""
        about = self.backend.describe()
        return {"device": self.backend.device, "version": about.get("framework_version")}

    def model(self, source: str) -> tuple[Model, Source]:
        """The model, and the weights found; a run's newest checkpoint is looked up each time."""
        from diptych.model import Model
        from diptych.weights.find import find_weights

        found = find_weights(source)
        key = f"{source} {found.facts()['weights_sha256']}"
        if key not in self.models:
            while len(self.models) >= KEPT:
                self.models.pop(next(iter(self.models)))
            self.models[key] = Model(found, self.backend)
        self.models[key] = self.models.pop(key)  # the newest is last
        return self.models[key], found

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """The result of one job."""
        task = {"sample": self.sample, "between": self.between, "encode": self.encode}[job["kind"]]
        return task(job)

    def _tick(self, job: dict[str, Any], total: int) -> Callable[[], None]:
        """A function that counts one solver step, tells the page, and ends a stopped job."""
        done, last = 0, 0.0

        def tick() -> None:
            nonlocal done, last
            done += 1
            if job["id"] in self.stopped:
                raise Stopped
            if done == total or time.monotonic() - last > 0.1:
                last = time.monotonic()
                self.say(id=job["id"], progress={"done": done, "total": total})

        self.say(id=job["id"], progress={"done": 0, "total": total})
        return tick

    def sample(self, job: dict[str, Any]) -> dict[str, Any]:
        """Images from the noise of a seed."""
        model, found = self.model(job["source"])
        sampler, said = self._sampler(job, found)
        return self._drawn(job, model, found, sampler, said, list(range(job["num"])), None)

    def between(self, job: dict[str, Any]) -> dict[str, Any]:
        """Images of the noises on the arc between two seeds."""
        from diptych.generate.starts import between_seeds, refuse_unlike

        model, found = self.model(job["source"])
        sampler, said = self._sampler(job, found, implied_between(found, job["settings"]))
        refuse_unlike(sampler, model.engine.schedule)
        points = [(seed, 0) for seed in job["seeds"]]
        start = between_seeds(points, job["between"], model.engine.shape, sampler.noise)
        images = list(range(len(start.x)))
        return self._drawn(job, model, found, sampler, said, images, start.x)

    def _sampler(self, job: dict[str, Any], found: Any, implied: Any = None) -> Any:
        from diptych.sampling.sampler import choose_sampler
        from diptych.weights.found_steps import read_options

        options, _ = read_options(job["settings"])
        return choose_sampler(options, found.config, found.sampler, implied)

    def _drawn(
        self,
        job: dict[str, Any],
        model: Any,
        found: Any,
        sampler: Any,
        said: str | None,
        images: list[int],
        x_T: Any,
    ) -> dict[str, Any]:
        engine = model.engine
        card = sampler.card(engine.schedule)
        timesteps = card["timesteps"]
        frames = Frames(len(timesteps), len(images), engine.shape)
        tick = self._tick(job, len(timesteps))

        def kept(x: Any) -> Pixels:
            pixels: Pixels = engine.pixels(engine.backend.numpy(x[: frames.images]))
            return pixels

        def observe(k: int, level: Any, x: Any) -> None:
            tick()
            if k in frames.steps:
                frames.x.append(kept(x))

        def predicted(k: int, level: Any, x0: Any) -> None:
            if k in frames.steps:
                frames.x0.append(kept(x0))

        began = time.perf_counter()
        drawn = engine.draw(sampler, images, job["seed"], x_T, observe=observe, predicted=predicted)
        return {
            "images": packed(engine.pixels(drawn)),
            "columns": len(images) if job["kind"] == "between" else sampler.columns,
            "x": packed(np.stack(frames.x)),
            "x0": packed(np.stack(frames.x0)),
            "timesteps": [[*timesteps[1:], -1][k] for k in frames.steps],
            "kept": [k + 1 for k in frames.steps],
            "seconds": time.perf_counter() - began,
            "card": {k: v for k, v in card.items() if k != "timesteps"},
            "said": said or found.note,
            "weights_sha256": model.facts["weights_sha256"],
        }

    def encode(self, job: dict[str, Any]) -> dict[str, Any]:
        """The noise of a picture, and the picture that it gives."""
        from diptych.data.picture import read_pixels
        from diptych.generate.encode import SPREAD
        from diptych.generate.inputs import fitted_picture
        from diptych.generate.roundtrip import round_trip
        from diptych.sampling.inversion import make_inversion
        from diptych.training.batches import to_uint8

        image = read_pixels(base64.b64decode(job["picture"]), "the picture")
        model, found = self.model(job["source"])
        engine = model.engine
        pixels = fitted_picture(image, engine.shape, found.config.data.crop, "the picture")[None]
        inversion = make_inversion(
            job["settings"].get("steps"),
            job["settings"].get("spacing"),
            job["refine"],
            engine.schedule.timesteps,
            ends_in_noise=engine.starts_in_noise,
        )
        tick = self._tick(job, 2 * len(inversion.sampler.timesteps(engine.schedule)))
        began = time.perf_counter()
        trip = round_trip(model, inversion, pixels, lambda *_: tick())
        return {
            "original": packed(pixels),
            "noise": packed(to_uint8(trip.latents / np.float32(SPREAD))),
            "images": packed(engine.pixels(trip.back)),
            "columns": 1,
            "error": float(trip.error[0]),
            "seconds": time.perf_counter() - began,
            "card": {k: v for k, v in inversion.card(engine.schedule).items() if k != "timesteps"},
            "said": found.note,
            "weights_sha256": model.facts["weights_sha256"],
        }


class Ladder:
    """The worker that climbs the ladder; the panels' processes are its children."""

    def __init__(self, say: Callable[..., None]) -> None:
        self.say = say
        self.stopped: set[int] = set()

    def facts(self) -> dict[str, Any]:
        """Nothing is loaded here."""
        return {}

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Climb, and say which rung each process has traced."""
        from diptych.align.ladder import results
        from diptych.align.ladder.climb import LadderRequest, climb
        from diptych.align.ladder.rungs import choose
        from diptych.config.load import load_config

        def say(said: dict[str, Any]) -> None:
            if "rung" in said:
                self.say(id=job["id"], progress=said)

        config = load_config(job["preset"], [])
        request = LadderRequest(
            job["preset"],
            config,
            rungs=choose(job["rungs"]),
            steps=job["steps"],
            device=job["device"],
            precision=config.train.precision,
        )
        return results.content(climb(request, say))


def work(worker: Any, jobs: queue.Queue[dict[str, Any]], say: Callable[..., None]) -> None:
    """Do jobs as they come, for ever."""
    say(ready=worker.facts())
    while True:
        job = jobs.get()
        number = job["id"]
        try:
            if number in worker.stopped:
                raise Stopped
            with PythonTerms():
                result = worker.run(job)
            say(id=number, result=result)
        except Stopped:
            say(id=number, stopped=True)
        except (UserError, MachineError) as error:
            say(id=number, error=str(error))
        except Exception as error:
            traceback.print_exc()
            say(id=number, error=one_line(f"{type(error).__name__}: {error}")[:300])


def lines_of(number: int) -> Iterator[bytes]:
    """The lines read from a file descriptor."""
    rest = bytearray()
    while block := os.read(number, 1 << 20):
        rest += block
        if b"\n" in block:
            *whole, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            yield from whole


def main() -> None:
    """Run the process."""
    name, device = sys.argv[1:3]
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # frameworks print, which is no message
    # A file of its own, read without Python's buffer: Jittor forks, and a child that closes a
    # buffer whose lock another thread held at the fork waits for ever.
    given = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    lock = threading.Lock()
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    stopped: list[int] = []

    def say(**message: Any) -> None:
        with lock:
            out.write(line(message))

    worker: Any = None

    def listen() -> None:
        for text in lines_of(given):
            message = json.loads(text)
            if "cancel" in message:
                stopped.append(message["cancel"])
                if worker is not None:
                    worker.stopped.add(message["cancel"])
            else:
                jobs.put(message)
        if os.getpgrp() == os.getpid():  # with the ladder's processes and compilers
            os.killpg(0, signal.SIGKILL)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    try:
        worker = Ladder(say) if name == "ladder" else Worker(name, device, say)
    except (UserError, MachineError) as error:
        say(failed=str(error))
        return
    except Exception as error:
        say(failed=f"{type(error).__name__}: {error}"[:300])
        raise
    worker.stopped.update(stopped)
    work(worker, jobs, say)


if __name__ == "__main__":
    main()
