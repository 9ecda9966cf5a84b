"""The studio's page in a real browser, with both panels at work.

Needs Playwright and a Chromium on the path (or named by DIPTYCH_BROWSER); skipped without them.
DIPTYCH_SHOTS=FOLDER keeps a picture of each room.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="the extra `studio` is not installed")
from diptych.files import LOCK
from studio_jobs import Served, serving, two_runs
from waiting import PATIENCE, until

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOUND = os.environ.get("DIPTYCH_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(not FOUND, reason=f"no browser: none of {', '.join(NAMES)}"),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("torch", "jittor")),
        reason="a panel is not installed",
    ),
]
QUICK = {"kind": "sample", "source": "zoo:mnist-torch", "num": 1,
         "settings": {"solver": "ddim", "steps": 2}}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs and a report."""
    found = tmp_path_factory.mktemp("studio")
    two_runs(found)
    (found / "report").mkdir()
    (found / "report" / "report.json").write_text("{}")
    (found / "report" / "index.html").write_text("<!doctype html><title>R</title><p>the report")
    return found


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(folder) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=FOUND, args=["--no-sandbox"])
        yield found
        found.close()


class Window:
    """A page in a context of its own; what it complains of, and what it asks the network for."""

    def __init__(self, browser: Any, served: Served, room: str, width: int = 1280) -> None:
        self.served = served
        self.context = browser.new_context(viewport={"width": width, "height": 900})
        self.context.set_default_timeout(1000 * PATIENCE)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(f"{served.address}/#{room}")
        self.until("document.querySelector('#about').textContent.length > 0")

    def until(self, expression: str) -> None:
        """Wait until an expression is true; `wait_for_function` needs eval, which is forbidden."""
        end = time.monotonic() + PATIENCE
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(50)

    def draw(self) -> dict[str, Any]:
        """Press Draw; return the job after its end, when the page shows it."""
        with self.page.expect_response(lambda r: r.url.endswith("/api/jobs")) as answer:
            self.page.click("#go")
        number = answer.value.json()["id"]
        self.page.wait_for_selector(f"#result[data-job='{number}']", state="attached")
        self.until(
            "[...document.querySelectorAll('#result img')].every(i => i.complete && i.naturalWidth)"
        )
        return dict(self.served.ask(f"/api/jobs/{number}")[2])

    def shot(self, name: str) -> None:
        """Keep a picture, if somebody wants to look."""
        if folder := os.environ.get("DIPTYCH_SHOTS"):
            self.page.screenshot(path=f"{folder}/{name}.png", full_page=True)

    def no_sideways(self) -> None:
        """Nothing is wider than the window."""
        width = self.page.evaluate("document.documentElement.scrollWidth")
        assert width <= self.page.viewport_size["width"]

    def __enter__(self) -> Window:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self.context.close()
        if kind is None:
            own = (self.served.address, "data:", "blob:")
            assert [url for url in self.asked if not url.startswith(own)] == []
            assert self.complaints == []


def test_both_panels_draw_from_the_same_noise(browser: Any, served: Served) -> None:
    with Window(browser, served, "sample") as window:
        page = window.page
        page.fill("#num", "4")
        page.fill("#seed", "3")
        page.click("#quality td button >> nth=0")  # ddim at 5 calls
        assert page.input_value("#solver") == "ddim" and page.input_value("#steps") == "5"
        assert page.locator("#quality details").first.locator("td.chosen").count() == 1
        job = window.draw()
        assert (job["state"], job["errors"]) == ("done", {})
        assert job["difference"]["images"] == 4 and job["difference"]["max_levels"] <= 2
        shown = page.locator("#result img[data-picture]")
        names = shown.evaluate_all("images => images.map(image => image.dataset.picture)")
        assert names[:3] == ["torch", "jittor", "difference"]
        assert "--seed 3" in page.locator("#result pre").text_content()
        # The trajectory: each step is another picture, the last is the result.
        place = "#result img[data-picture='torch-way']"
        seen = set()
        for k in range(5):
            page.locator("#way").evaluate(
                f"(e) => {{ e.value = {k}; e.dispatchEvent(new Event('input')) }}"
            )
            path = page.get_attribute(place, "src")
            seen.add(served.ask(path)[2])
            assert f"step {k + 1} of 5" in page.inner_text("#way-at")
        assert len(seen) == 5
        assert served.ask(path)[2] == served.ask(f"/api/jobs/{job['id']}/torch.png")[2]
        page.select_option("#result .slide select", "x0")
        assert "-x0-4.png" in page.get_attribute(place, "src")
        # The wipe: by its slider, and by drawing over the picture.
        wipe = page.locator("#result .wipe")
        wipe.locator("input").fill("20")
        assert wipe.evaluate("e => e.style.getPropertyValue('--cut')") == "20%"
        wipe.scroll_into_view_if_needed()
        box = wipe.locator("> div").bounding_box()
        page.mouse.move(box["x"] + 5, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 20)
        page.mouse.up()
        assert abs(float(wipe.locator("input").input_value()) - 75) < 3
        window.shot("sample")
        # Another seed gives other images; the earlier job stays in reach.
        page.fill("#seed", "4")
        again = window.draw()
        one, two = (served.ask(f"/api/jobs/{x['id']}/torch.png")[2] for x in (job, again))
        assert one != two
        page.click("#history button >> nth=0")
        assert page.get_attribute("#result", "data-job") == str(job["id"])


def test_bad_input_is_a_line_on_the_page(browser: Any, served: Served) -> None:
    with Window(browser, served, "sample") as window:
        page = window.page
        page.fill("#num", "65")
        page.click("#go")
        page.wait_for_selector("#fault p")
        assert page.inner_text("#fault").startswith("num: Input should be less than or equal to 64")
        page.fill("#num", "1")
        page.select_option("#solver", "heun")
        page.fill("#eta", "0.5")
        page.fill("#steps", "3")
        job = window.draw()  # refused by the panels, which know the solver
        assert job["state"] == "failed"
        assert page.locator("#result .error").count() == 1
        assert "solver 'heun' has eta 0" in page.inner_text("#result .error")
        page.focus("#seed")
        page.keyboard.press("Control+A")
        page.keyboard.type("e")
        page.click("#go")
        assert page.inner_text("#fault") == "seed: not a number"
        window.complaints[:] = [x for x in window.complaints if "status of 400" not in x]


def test_a_class_is_drawn_with_guidance(browser: Any, served: Served) -> None:
    with Window(browser, served, "sample") as window:
        page = window.page
        assert not page.locator("#classes").is_visible()  # mnist-torch has no classes
        page.select_option("#source", "zoo:mnist-conditional")
        page.wait_for_selector("#classes")
        page.select_option("#which", "torch")
        for name, value in {"classes": "7", "guidance": "2", "num": "2", "steps": "3"}.items():
            page.fill(f"#{name}", value)
        page.select_option("#solver", "dpmpp")
        page.fill("#order", "2")
        page.fill("#spacing", "logsnr")
        job = window.draw()
        card = job["results"]["torch"]["card"]
        assert (card["classes"], card["guidance"], card["spacing"]) == ([7], 2.0, "logsnr")
        assert job["difference"] is None


def test_a_guide_is_weighed_and_switched_off(browser: Any, served: Served) -> None:
    """zoo:mnist-torch has a guide and no classes; it is used with the recommended solver alone."""
    with Window(browser, served, "sample") as window:
        page = window.page
        page.wait_for_selector("#guidance")
        page.select_option("#which", "torch")
        for name, value in {"guidance": "1", "num": "1", "steps": "3"}.items():
            page.fill(f"#{name}", value)
        assert window.draw()["results"]["torch"]["card"]["guidance"] is None
        page.fill("#guidance", "1.5")
        assert window.draw()["results"]["torch"]["card"]["guidance"] == 1.5
        page.select_option("#solver", "ddim")  # which the model recommends no guide for
        assert not page.locator("#guidance").is_visible()
        assert window.draw()["results"]["torch"]["card"]["guidance"] is None
        page.select_option("#solver", "")
        page.wait_for_selector("#guidance")
        page.click(".tabs a[href='#between']")
        page.wait_for_selector("#seed-b")
        assert not page.locator("#guidance").is_visible()


def test_between_two_seeds_and_a_picture_encoded(
    browser: Any, served: Served, tmp_path: Path
) -> None:
    with Window(browser, served, "between") as window:
        page = window.page
        page.fill("#seed-b", "5")
        page.fill("#between", "3")
        page.fill("#steps", "3")
        job = window.draw()
        assert job["results"]["torch"]["num"] == 5 and job["errors"] == {}
        window.shot("between")
        page.click(".tabs a[href='#encode']")
        page.click("#go")
        assert page.inner_text("#fault") == "Give a picture first: drop one, or choose a file."
        picture = tmp_path / "seven.png"
        pixels = np.zeros((56, 80, 3), np.uint8)
        pixels[8:14, 25:55] = pixels[8:48, 45:52] = 255
        Image.fromarray(pixels).save(picture)
        page.evaluate(
            """(text) => {
                const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
                const data = new DataTransfer();
                data.items.add(new File([bytes], 'seven.png', { type: 'image/png' }));
                const drop = new DragEvent('drop', { dataTransfer: data, bubbles: true });
                document.getElementById('drop').dispatchEvent(drop);
            }""",
            base64_of(picture),
        )
        page.wait_for_selector("#dropped:not([hidden])")
        page.fill("#steps", "4")
        page.fill("#refine", "1")
        job = window.draw()
        assert job["errors"] == {} and job["results"]["jittor"]["error"] < 0.05
        names = page.locator("#result [data-picture]").evaluate_all(
            "images => images.map(image => image.dataset.picture)"
        )
        assert names == ["original", "torch-noise", "torch", "jittor-noise", "jittor", "difference"]
        window.shot("encode")
        bad = tmp_path / "bad.png"
        bad.write_bytes(b"no picture")
        page.set_input_files("#file", bad)
        page.wait_for_selector("#dropped", state="hidden")
        assert window.draw()["state"] == "failed"
        assert "is not a JPEG, PNG" in page.inner_text("#result")


def base64_of(path: Path) -> str:
    import base64

    return base64.b64encode(path.read_bytes()).decode()


def test_runs_live_and_beside_each_other(browser: Any, served: Served, folder: Path) -> None:
    for name in ("torch", "jittor"):
        (folder / name / LOCK).touch()
    with Window(browser, served, "runs") as window:
        page = window.page
        page.wait_for_selector("#curve .main-svg .scatterlayer .trace")
        page.wait_for_selector("#unlike th:has-text('train.lr')")  # asked for after the curves
        assert page.locator("#curve .scatterlayer .trace").count() == 2
        assert "train.lr" in page.inner_text("#unlike") and "0.002" in page.inner_text("#unlike")
        assert page.locator("#runs-list .live").count() == 2
        last = "Math.max(...document.getElementById('curve').data.flatMap(t => t.x))"
        assert page.evaluate(last) == 200
        journal = folder / "torch" / "metrics.jsonl"
        row = json.loads(journal.read_text().splitlines()[-1]) | {"step": 201}
        with journal.open("a") as file:
            file.write(json.dumps(row) + "\n")
        window.until(f"{last} === 201")
        assert page.locator("#grids .wipe img").count() == 2
        page.select_option("#left", label="torch, 200")
        page.select_option("#right", label="jittor, 200")
        window.until("[...document.querySelectorAll('#grids img')].every(i => i.naturalWidth)")
        assert page.locator("#grids p span").all_inner_texts() == ["torch, 200", "jittor, 200"]
        window.shot("runs")
        with window.context.expect_page() as opened:
            page.click("#reports a")
        opened.value.wait_for_selector("text=the report")
        page.locator("#runs-list input").first.uncheck()
        page.wait_for_selector("#unlike-box", state="hidden")


def test_the_ladder_fills_in_and_stops(browser: Any, served: Served, folder: Path) -> None:
    with Window(browser, served, "ladder") as window:
        page = window.page
        for box in page.locator("input[name=rung]").all():
            box.set_checked(box.get_attribute("value") in ("config", "schedule"))
        page.click("#climb")
        window.until("document.querySelectorAll('#ladder-table .pass').length === 2")
        row = page.locator("#ladder-table tr[data-rung=schedule] td").all_inner_texts()
        assert all(text.endswith(" s") for text in row[:3]) and row[3] == "pass"
        assert "pass" in page.inner_text("#ladder-said")
        window.shot("ladder")
        page.wait_for_selector("#climb:enabled")
        for box in page.locator("input[name=rung]").all():
            box.check()  # all: it does not end before it is stopped
        page.click("#climb")
        page.click("#ladder-stop:enabled")
        page.wait_for_selector("#ladder-said:has-text('Stopped.')")
        assert list(folder.glob(".diptych-studio-*"))  # the traces are below the folder


def test_twenty_requests_at_once_are_answered_in_order(browser: Any, served: Served) -> None:
    def post(seed: int) -> tuple[int, int]:
        return seed, served.ask("/api/jobs", QUICK | {"seed": seed})[2]["id"]

    with Window(browser, served, "sample"), ThreadPoolExecutor(20) as pool:
        asked = list(pool.map(post, range(20)))
        jobs = {number: served.finished(number) for _, number in asked}
        order = [number for number, job in sorted(jobs.items(), key=lambda item: item[1]["order"])]
        assert order == sorted(order) and len(order) == 20
        assert {job["state"] for job in jobs.values()} == {"done"}
        told = {number: job["results"]["torch"]["command"] for number, job in jobs.items()}
        assert all(f"--seed {seed} " in told[number] for seed, number in asked)


def test_a_killed_panel_comes_back_and_a_stopped_job_ends(browser: Any, served: Served) -> None:
    with Window(browser, served, "sample") as window:
        page = window.page
        page.wait_for_selector("#panels [data-panel=torch][data-state=ready]")
        panel = served.studio.panels["torch"]
        first = panel.pid
        os.kill(first, signal.SIGKILL)
        # The page looks from time to time, and may miss the state between.
        until(lambda: panel.pid not in (None, first) and panel.state == "ready")
        page.wait_for_selector("#panels [data-panel=torch][data-state=ready]")
        # During a job: it is done anew.
        page.select_option("#which", "torch")
        page.select_option("#solver", "ddpm")
        page.fill("#num", "64")  # far more work than is done
        page.click("#go")
        page.wait_for_selector("#bars progress[value]")
        second = panel.pid
        os.kill(second, signal.SIGKILL)
        until(lambda: panel.pid not in (None, second))
        window.until("document.querySelector('#bars progress[value]')?.value > 0")
        page.click("#stop")
        page.wait_for_selector("#result:has-text('Stopped.')")
        page.wait_for_selector("#stop:disabled")
        # The panel is ready for the next job: it stopped by itself or, too slow to answer, was
        # started again.
        page.wait_for_selector("#panels [data-panel=torch][data-state=ready]")


def test_a_phone_is_not_scrolled_sideways_and_chinese(browser: Any, served: Served) -> None:
    with Window(browser, served, "sample", width=360) as window:
        page = window.page
        page.get_by_role("button", name="中文").click()
        assert page.locator("html").get_attribute("lang") == "zh-CN"
        assert page.inner_text("#go") == "生成"
        page.get_by_role("button", name="深色").click()
        page.fill("#num", "4")
        page.fill("#steps", "3")
        page.select_option("#solver", "ddim")
        window.draw()
        assert "每张 3 次网络调用" in page.inner_text("#result")
        for language in ("zh", "en"):
            page.click(f"button[data-lang={language}]")
            for room in ("sample", "between", "encode", "runs", "ladder"):
                page.click(f".tabs a[href='#{room}']")
                if room == "runs":
                    page.wait_for_selector("#curve .main-svg .scatterlayer .trace")
                window.no_sideways()
                window.shot(f"phone-{language}-{room}")
        page.reload()
        assert page.locator("html").get_attribute("data-theme") == "dark"  # it is remembered


def test_the_processes_end_with_the_studio(tmp_path: Path) -> None:
    with serving(tmp_path) as found:
        found.ask("/api/state")  # a page is open
        panels = [found.studio.panels[name] for name in ("torch", "jittor")]
        until(lambda: all(panel.alive for panel in panels))
        numbers = [panel.pid for panel in panels]
        assert None not in numbers
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)
    assert list(tmp_path.iterdir()) == []
