"""The search for timesteps: its record, its result as a spacing, and what it refuses.

The network is arithmetic on NumPy arrays, and the features are the images' own pixels.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import numpy_backend
from commands import call
from diptych.config.load import DiffusionConfig
from diptych.diffusion.schedule import make_schedule
from diptych.diffusion.timesteps import choose_timesteps, listed_timesteps, listing
from diptych.errors import UserError
from diptych.model import Model
from diptych.sampling.options import SamplerOptions, folder_name
from diptych.sampling.sampler import make_sampler
from diptych.study import search_steps
from diptych.study.search_steps import Search, moves, run_search
from diptych.weights import find
from diptych.weights.found_steps import IN_ZOO, judged_with, read_options, read_spacing

TABLE = make_schedule(DiffusionConfig())
SEARCH = Search(4, ("ipndm", "dpmpp"), num=32, tries=12, batch=16, teacher="ddim", teacher_steps=20,
                features="inception")  # fmt: skip


class Pixels:
    """A feature network that averages blocks of seven pixels squared."""

    name, backend, device, dims, sha256 = "inception", "numpy", "cpu", 4, "0" * 64

    def resized(self, images: Any, *how: Any) -> Any:
        blocks = images.reshape(len(images), 2, 7, 2, 7).mean(axis=(2, 4)) / 255
        pool = blocks.reshape(len(images), 4).astype(np.float32)
        return SimpleNamespace(pool=pool, logits=pool, spatial=None)


def a_model() -> Any:
    engine, _ = numpy_backend.engine(narrow)
    return SimpleNamespace(engine=engine, facts={"weights_sha256": "1" * 64, "weights": "ema"})


def narrow(x: Any, embedding: Any) -> Any:
    """The noise of flat images, dark or bright, which the early steps decide."""
    mean = x.mean(axis=(2, 3), keepdims=True)
    return (0.9 * x - 0.4 * np.tanh(40 * embedding[0, 20] * mean)).astype(np.float32)


def searched(out: Path, search: Search = SEARCH, **options: Any) -> dict[str, Any]:
    return run_search(a_model(), search, Pixels(), out, progress=False, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "four.json"
    searched(out)
    return out


def test_the_result_is_no_worse_than_every_start(whole: Path) -> None:
    found = json.loads(whole.read_text())
    full = {name: score for name, score in found["scores"].items() if "num 32 seed 0" in name}
    best = min(full.values())
    starts = [s for name, s in full.items() if listed_timesteps(name.split()[1]) in STARTS]
    assert starts and best < min(starts)
    assert found["complete"] and len(found["timesteps"]) == 4
    assert found["interval"][0] <= found["score"] <= found["interval"][1]
    assert found["solver"] in ("ipndm", "dpmpp") and found["metric"] == "fid"


def test_the_score_is_of_seeds_that_chose_nothing(whole: Path) -> None:
    found = json.loads(whole.read_text())
    by_seed: dict[int, list[float]] = {}
    for name, score in found["scores"].items():
        by_seed.setdefault(int(name.split()[-1]), []).append(score)
    assert [len(by_seed[seed]) for seed in (1, 2, 3)] == [3, 3, 3]  # three finalists
    assert [len(by_seed[seed]) for seed in (4, 5, 6)] == [1, 1, 1]
    finalists: dict[tuple[str, str], float] = {}
    for name, score in found["scores"].items():
        solver, timesteps = name.split()[:2]
        if name.split()[-1] in ("1", "2", "3"):
            finalists[solver, timesteps] = finalists.get((solver, timesteps), 0.0) + score
    solver, timesteps = min(finalists, key=lambda key: finalists[key])
    assert listed_timesteps(timesteps) == found["timesteps"]
    assert found["score"] == pytest.approx(np.mean([by_seed[seed][0] for seed in (4, 5, 6)]))


STARTS = [choose_timesteps(name, 4, TABLE)[::-1] for name in search_steps.SPACINGS]


def test_those_checked_are_the_best_of_all_images(whole: Path) -> None:
    scores = json.loads(whole.read_text())["scores"]

    def of_seed(seed: int) -> dict[str, float]:
        end = f" num {SEARCH.num} seed {seed}"
        return {key.removesuffix(end): x for key, x in scores.items() if key.endswith(end)}

    tried = of_seed(SEARCH.seed)
    best = sorted(tried, key=lambda each: (tried[each], each))[:3]
    assert len(tried) > 3 and set(best) == set(of_seed(SEARCH.seed + 1))


def test_an_interrupted_search_ends_as_the_whole_one(whole: Path, tmp_path: Path) -> None:
    for tries in (1, 9, 17):
        out, real, count = tmp_path / f"{tries}.json", search_steps.write_json, 0

        def stop(path: Path, value: Any) -> None:
            nonlocal count
            real(path, value)  # noqa: B023
            count += 1
            if count == tries:  # noqa: B023
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(search_steps, "write_json", stop)
            with pytest.raises(KeyboardInterrupt):
                searched(out)
        with pytest.raises(UserError, match="its search has not ended; go on with --resume"):
            read_spacing(out)
        assert len(json.loads(out.read_text())["scores"]) == tries
        searched(out, resume=True)
        assert out.read_text() == whole.read_text()


def test_a_record_is_kept_and_another_search_is_refused(whole: Path, tmp_path: Path) -> None:
    before = whole.read_bytes()
    with pytest.raises(UserError, match="exists; go on with --resume, or replace"):
        searched(whole)
    with pytest.raises(UserError, match="was searched with seed=0, not 1"):
        searched(whole, replace(SEARCH, seed=1), resume=True)
    model = a_model()
    model.engine.backend.precision = "bf16"
    with pytest.raises(UserError, match="was searched with precision=fp32, not bf16"):
        run_search(model, SEARCH, Pixels(), whole, resume=True, progress=False)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match="is not a file of diptych search-steps"):
        searched(tmp_path / "other.json", resume=True)
    assert whole.read_bytes() == before


@pytest.mark.parametrize(
    "words, message",
    [
        (["--resume", "--overwrite"], "exclude each other; choose one"),  # the record was lost
        (["--teacher-steps", 0], "'--teacher-steps': 0 is not in the range"),
    ],
)
def test_a_command_that_cannot_be_loses_no_record(
    monkeypatch: Any, capsys: Any, whole: Path, words: list[Any], message: str
) -> None:
    before = whole.read_bytes()
    asked = ["search-steps", "zoo:mnist-torch", "--calls", 4, "--out", whole, *words]
    code, out, err = call(monkeypatch, capsys, *asked)
    assert code == 2 and message in err and err.count("\n") == 1 and out == ""
    assert whole.read_bytes() == before


def test_a_changed_reference_is_another_search(tmp_path: Path) -> None:
    """It is known by its content: the path stays the same."""
    out, real = tmp_path / "four.json", tmp_path / "real.npz"
    random = np.random.RandomState(0)
    search = replace(SEARCH, reference=str(real), solvers=("ipndm",), num=16, tries=0)
    np.savez(real, images=random.randint(0, 256, (20, 14, 14), np.uint8))
    whole = searched(out, search)
    assert searched(out, search, resume=True) == whole
    np.savez(real, images=random.randint(0, 256, (20, 14, 14), np.uint8))
    with pytest.raises(UserError, match="was searched with reference_sha256="):
        searched(out, search, resume=True)
    for later in ("reference_sha256", "precision"):  # a record of an earlier version
        del whole["request"][later]
    out.write_text(json.dumps(whole))
    searched(out, search, resume=True)


def test_the_judged_sampler_is_used_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "clipped.json"
    solver = "dpmpp:clip:noise=host"
    searched(out, replace(SEARCH, solvers=(solver,), num=16, tries=0))
    spacing, judged = read_spacing(out)
    assert judged == {"solver": "dpmpp", "order": 2, "clip": True, "noise": "host"}
    options, said = read_options({"solver": None, "spacing": out})
    assert options == SamplerOptions(**judged, spacing=spacing)
    assert said is not None and said.endswith("judged with: dpmpp, order 2, clip, noise host")
    for given in ({"clip": False}, {"threshold": 0.9}):
        options, said = read_options({"solver": None, "spacing": out, **given})
        assert options == SamplerOptions("dpmpp", 2, spacing=spacing, noise="host", **given)
        assert said is not None and "but for what was asked" in said
    assert read_options({"solver": "ddim", "spacing": out})[0].clip is None
    tree = json.loads(out.read_text())
    del tree["settings"]  # a file of an earlier version
    out.write_text(json.dumps(tree))
    assert read_spacing(out)[1] == {"solver": "dpmpp", "order": 2}
    for damage in ({"clip": "yes"}, {"steps": 3}, ["clip"], {"guidance": True}):
        out.write_text(json.dumps(tree | {"settings": damage}))
        with pytest.raises(UserError, match="settings are damaged"):
            read_spacing(out)


def test_python_samples_with_the_judged_sampler(tmp_path: Path) -> None:
    out, seen = tmp_path / "clipped.json", []
    searched(out, replace(SEARCH, solvers=("dpmpp:clip:noise=host",), num=16, tries=0))
    model: Any = Model.__new__(Model)
    model.engine = SimpleNamespace(
        schedule=TABLE, plan=SimpleNamespace(num_classes=0, shape=(1, 14, 14)),
        starts_in_noise=False, backend=SimpleNamespace(device="cpu", free_memory=lambda: None),
        draw=lambda sampler, *_: seen.append(sampler) or np.zeros((2, 1, 14, 14), np.float32),
    )  # fmt: skip
    for given in ({}, {"clip": False}):
        model.sample(2, spacing=out, as_float=True, **given)
    assert [(s.solver, s.order, s.clip, s.noise) for s in seen] == [
        ("dpmpp", 2, True, "host"), ("dpmpp", 2, False, "host"),
    ]  # fmt: skip


def test_a_solver_that_cannot_be_searched_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"heun cannot take exactly 4 .*plms, uniform: .*equal"):
        searched(tmp_path / "x.json", replace(SEARCH, solvers=("heun", "plms")))
    assert not (tmp_path / "x.json").exists()
    with pytest.raises(UserError, match="--calls is 0"):
        replace(SEARCH, calls=0)


def test_a_network_that_predicts_eps_does_not_start_in_noise_alone(tmp_path: Path) -> None:
    """The schedule jsd ends at alpha 0, and the spacing trailing visits that level."""
    model = a_model()
    jsd = make_schedule(DiffusionConfig(schedule="jsd"))
    model.engine = replace(model.engine, schedule=jsd)
    search = replace(SEARCH, solvers=(" ipndm",), num=16, tries=0)
    found = run_search(model, search, Pixels(), tmp_path / "x.json", progress=False)
    assert [line.strip()[:26] for line in found["left_out"]] == ["ipndm, trailing: at t=999 "]
    assert found["timesteps"][0] < 999


def test_the_file_is_a_spacing_known_by_its_content(whole: Path) -> None:
    found = json.loads(whole.read_text())
    spacing, judged = read_spacing(whole)
    assert judged == {"solver": found["solver"], "order": found["order"]}
    sampler = make_sampler("ddim", spacing=spacing)
    assert sampler.steps == 4 and sampler.timesteps(TABLE) == found["timesteps"]
    assert sampler.card(TABLE)["spacing"] == spacing
    other = make_sampler("ddim", spacing="999,500,200,1")
    assert folder_name(sampler) != folder_name(other)


def test_a_sampler_s_options_read_the_file_and_take_its_solver(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = json.loads(whole.read_text())
    spacing, judged = read_spacing(whole)
    assert judged is not None
    options, said = read_options({"solver": None, "spacing": whole, "classes": "1,2"})
    assert options == SamplerOptions(**judged, spacing=spacing, classes=[1, 2])
    assert said is not None and said.endswith(f"judged with: {judged_with(judged)}")
    for given in ({"solver": "ddim"}, {"solver": None, "eta": 0.5}, {}):
        options, said = read_options({**given, "spacing": str(whole)})
        assert options == SamplerOptions(**given, spacing=spacing) and said is None
    assert read_options({"solver": None, "order": 2, "spacing": whole})[0].order == 2
    assert read_options({"solver": None}) == (SamplerOptions(), None)

    listed = ",".join(map(str, found["timesteps"]))
    shutil.copyfile(whole, tmp_path / listed)
    monkeypatch.chdir(tmp_path)  # a list is no path, though such a file is there
    assert read_spacing(listed) == (listed, None) and read_spacing(f"./{listed}")[1] == judged


def test_a_file_beside_a_model_of_the_zoo_goes_by_the_models_name(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "zoo_folder", lambda: tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="zoo:mine: no timesteps were searched"):
        read_spacing("zoo:mine")
    shutil.copyfile(whole, tmp_path / "mine" / IN_ZOO)
    assert read_spacing("zoo:mine") == read_spacing(whole)
    with pytest.raises(UserError, match="'mane' is not known; did you mean 'mine'"):
        read_spacing("zoo:mane")


@pytest.mark.parametrize(
    "spacing, steps, message",
    [
        ("900,500,20", 5, "has 3 timesteps, 5 steps are asked for"),
        ("900,500,500", 3, "must fall from noisy to clean"),
        ("20,500,900", 3, "must fall from noisy to clean"),
        ("1000,500,20", 3, "within 999 .. 0"),
        ("missing.json", 3, "missing.json"),
    ],
)
def test_a_list_that_does_not_suit_is_refused(spacing: str, steps: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_sampler("ddim", steps, spacing=read_spacing(spacing)[0])


def test_timesteps_found_for_another_schedule_are_refused() -> None:
    spacing = listing([900, 500, 20], TABLE)
    other = make_schedule(DiffusionConfig(schedule="cosine"))
    assert make_sampler("ddim", spacing=spacing).timesteps(TABLE) == [900, 500, 20]
    with pytest.raises(UserError, match="was found for another schedule"):
        make_sampler("ddim", spacing=spacing).check(other)
    assert make_sampler("ddim", spacing="900,500,20").timesteps(other) == [900, 500, 20]


def test_moves_stay_between_the_neighbours() -> None:
    listed = [999, 600, 30, 0]
    found = list(moves(listed, 0.5, TABLE))
    assert all(sum(a != b for a, b in zip(listed, each, strict=True)) == 1 for each in found)
    assert all(a > b for each in found for a, b in pairwise(each))
    assert len(found) == 6  # each of the two inner ones both ways, the ends inwards
    assert [999, 2, 1] not in moves([2, 1, 0], 0.5, TABLE)  # one timestep at a time
    assert all(each[1:] == [1, 0] for each in moves([2, 1, 0], 0.5, TABLE))
