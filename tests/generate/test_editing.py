"""Inversion, interpolation and starting from images: a round trip returns the input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import editing_jobs
import panel_jobs
from conftest import Panel
from diptych.diffusion.schedule import CLEAN, Level, make_schedule
from diptych.errors import UserError
from diptych.figures.grids import read_png
from diptych.files import read_json
from diptych.generate.interpolation import path, slerp
from diptych.generate.latents import read_latents, write_latents
from diptych.generate.starts import between_seeds, parse_level, parse_points, refuse_unlike
from diptych.network.plan import make_plan
from diptych.rng import normal_per_image
from diptych.runs.checkpoint import read_safetensors
from diptych.sampling.sampler import make_sampler
from diptych.sampling.solvers import Ddim, invert, solve
from diptych.sampling.solvers.kinds import KINDS
from numpy_backend import CONFIG, engine

TABLE = make_schedule(CONFIG.diffusion)


def data_denoise(x: Any, level: Level) -> Any:
    """The exact eps of pixels drawn from N(1, 0.5^2) or N(-1, 0.5^2), as often."""
    v = 0.25 * level.alpha**2 + level.sigma**2
    return level.sigma / v * (x - level.alpha * np.tanh(level.alpha * x / v))


def levels_up(steps: int) -> list[Level]:
    chosen = make_sampler("ddim", steps).timesteps(TABLE)[::-1]
    return [CLEAN, *map(TABLE.level, chosen)]


# Inversion


def test_the_round_trip_of_a_known_flow_gets_better_with_steps_and_with_refinement() -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 8, 8))

    def error(steps: int, refine: int) -> float:
        up = levels_up(steps)
        back = solve(Ddim(), data_denoise, invert(data_denoise, x, up, refine), up[::-1])
        return float(np.abs(back - x).max())

    found = [error(steps, 0) for steps in (50, 100, 200, 400)]
    assert found == sorted(found, reverse=True) and found[-1] < 0.3 * found[0]
    refined = [error(100, refine) for refine in (0, 1, 3, 8)]
    assert refined == sorted(refined, reverse=True) and refined[-1] < 1e-3 * refined[0]


def test_an_inversion_makes_the_calls_of_its_card_at_the_levels_of_the_way_back() -> None:
    asked: list[int] = []

    def denoise(x: Any, level: Level) -> Any:
        asked.append(level.t)
        return x

    invert(denoise, np.ones((1, 1, 2, 2)), levels_up(4), refine=2)
    assert asked == [t for t in (0, 250, 500, 750) for _ in range(3)]


def test_both_panels_encode_and_decode(panel: Panel) -> None:
    """Plain inversion gets better with steps, refinement more so; a wrong order shows."""
    few, more, exact = panel.call(editing_jobs.trip_errors, panel.name, [(10, 0), (50, 0), (10, 2)])
    assert more.mean() < 0.7 * few.mean() and exact.mean() < 0.2 * few.mean()
    wrong = panel.call(editing_jobs.misordered_trip, panel.name, 10)
    assert wrong.mean() > 3 * few.mean()


def test_python_encodes_bytes_and_floats_alike(panel: Panel) -> None:
    a, b, images = panel.call(editing_jobs.python_trip, panel.name, 10)
    assert a.shape == (3, 1, 28, 28) and a.dtype == np.float32
    np.testing.assert_allclose(a, b, atol=1e-3)  # another batch size: another rounding
    off = np.abs(images.astype(int) - editing_jobs.digits(3).transpose(0, 2, 3, 1))
    assert off.mean() < 12


def test_a_network_with_classes_is_asked_without_one(panel: Panel) -> None:
    found, silent, seven = panel.call(editing_jobs.encode_without_class, panel.name)
    np.testing.assert_allclose(found, silent, atol=1e-5)
    assert np.abs(found - seven).max() > 1e-3


def test_the_example_of_the_page_comes_back_to_its_images(panel: Panel) -> None:
    images, again = panel.call(editing_jobs.page_example, panel.name)
    assert images.dtype == np.uint8 and images.shape == (4, 28, 28, 1)
    off = np.abs(images.astype(int) - again).mean()
    assert off < 0.3 * np.abs(images.astype(int) - np.roll(again, 1, axis=0)).mean()


@pytest.mark.torch
@pytest.mark.parametrize("form", ["safetensors", "npz"])
def test_an_encode_folder_is_whole_and_decodes_to_its_own_images(
    panels: dict[str, Panel], tmp_path: Path, form: str
) -> None:
    torch, codes, back = panels["torch"], tmp_path / "codes", tmp_path / "back"
    options = {"curve": (2, 8), "form": form}
    made = torch.call(editing_jobs.encode_folder, "torch", codes, **options)
    assert made == read_json(codes / "manifest.json") and made["complete"]
    assert made["network_calls"] == 8 and made["level"] == 750 and not (codes / "parts").exists()
    assert [row["steps"] for row in made["curve"]] == [2, 8] and (codes / "curve.png").is_file()
    lines = (codes / "errors.csv").read_text().splitlines()
    assert len(lines) == 6
    mean = np.mean([float(line.split(",")[1]) for line in lines[1:]])
    assert mean == pytest.approx(made["mse"], rel=1e-6)
    torch.call(editing_jobs.decode_folder, "torch", codes, back)
    for i in range(5):
        assert (codes / f"{i:05d}.png").read_bytes() == (back / f"{i:05d}.png").read_bytes()
    latents = read_latents(codes, (1, 14, 14))
    assert latents.x.shape == (5, 1, 14, 14) and latents.card["spacing"] == "uniform"


@pytest.mark.torch
def test_an_interrupted_encoding_goes_on_to_the_same_bytes(
    panels: dict[str, Panel], tmp_path: Path
) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"}

    def call(*args: Any, **named: Any) -> Any:
        return panels["torch"].call(editing_jobs.encode_folder, "torch", *args, **named)

    call(tmp_path / "whole", curve=(2,))
    assert call(tmp_path / "broken", fail_at=2, curve=(2,)) is None
    assert read_json(tmp_path / "broken" / "manifest.json")["complete"] is False
    assert len(list((tmp_path / "broken" / "parts").iterdir())) == 2
    assert call(tmp_path / "broken", curve=(2,))["complete"]
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    added = call(tmp_path / "whole", fail_at=0)  # nothing is drawn anew
    assert added["complete"]
    with pytest.raises(UserError, match="images_sha256="):
        call(tmp_path / "whole", count=4)


# Latents in files


def test_latents_come_back_and_damage_is_refused(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((3, 1, 4, 4)).astype(np.float32)
    for name in ("a.safetensors", "a.npz"):
        write_latents(tmp_path / name, x, {"level": 7, "steps": 2, "spacing": "quad"})
        back = read_latents(tmp_path / name, (1, 4, 4))
        assert np.array_equal(back.x, x) and back.card["level"] == 7
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match="not readable latents"):
            read_latents(tmp_path / name, (1, 4, 4))
    np.savez_compressed(tmp_path / "packed.npz", x=np.zeros_like(x))
    packed = bytearray((tmp_path / "packed.npz").read_bytes())
    middle = len(packed) // 3
    packed[middle : middle + 8] = b"damaged!"
    (tmp_path / "packed.npz").write_bytes(packed)
    import ml_dtypes  # noqa: F401  # with it the library itself would read bfloat16

    head = json.dumps({"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    half = len(head).to_bytes(8, "little") + head + bytes(6)  # NumPy has no bfloat16
    (tmp_path / "half.safetensors").write_bytes(half)
    for name in ("packed.npz", "half.safetensors"):
        with pytest.raises(UserError, match="not readable latents"):
            read_latents(tmp_path / name, (1, 4, 4))
    with pytest.raises(UserError, match="not a valid safetensors file"):
        read_safetensors(tmp_path / "half.safetensors")
    np.save(tmp_path / "b.npy", x)
    assert read_latents(tmp_path / "b.npy", (1, 4, 4)).card == {}
    np.save(tmp_path / "c.npy", np.full_like(x, np.nan))
    for name, shape, message in (
        ("b.npy", (3, 4, 4), "this model needs"),
        ("c.npy", (1, 4, 4), "not finite"),
        ("d.npy", (1, 4, 4), "no latents here"),
    ):
        with pytest.raises(UserError, match=message):
            read_latents(tmp_path / name, shape)


def test_an_array_is_read_whatever_its_suffix_and_a_card_that_is_none_is_refused(
    tmp_path: Path,
) -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    for name, save in (("a.npz", np.save), ("b.npy", np.savez)):
        with (tmp_path / name).open("wb") as file:
            save(file, x)
        assert np.array_equal(read_latents(tmp_path / name, (1, 4, 4)).x, x)
    for card in ("3", "[1]", '{"level": 5}'):
        np.savez(tmp_path / "c.npz", latents=x, card=np.array(card))
        with pytest.raises(UserError, match="its card is"):
            read_latents(tmp_path / "c.npz", (1, 4, 4))


# Interpolation


def test_slerp_has_exact_ends_and_keeps_the_norm_and_the_pace() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 1, 28, 28)).astype(np.float32)
    assert np.array_equal(slerp(a, b, 0.0), a) and np.array_equal(slerp(a, b, 1.0), b)
    unit_a, unit_b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    theta = np.arccos((unit_a * unit_b).sum())
    for fraction in (0.25, 0.5, 0.9):
        point = slerp(unit_a, unit_b, fraction)
        assert np.linalg.norm(point) == pytest.approx(1, abs=1e-6)
        angle = np.arccos(np.clip((unit_a * point).sum(), -1, 1))
        assert angle == pytest.approx(fraction * theta, abs=1e-4)
    np.testing.assert_allclose(slerp(a, a, 0.3), a, rtol=1e-6)
    assert np.array_equal(slerp(0 * a, 0 * a, 0.5), 0 * a)


def test_a_path_passes_through_its_points() -> None:
    points = np.random.default_rng(0).standard_normal((3, 1, 4, 4)).astype(np.float32)
    way = path(points, 3)
    assert way.shape == (9, 1, 4, 4) and np.array_equal(way[::4], points)
    assert np.array_equal(path(points, 0), points)


def test_an_interpolation_starts_and_ends_on_the_noise_of_its_images() -> None:
    way = between_seeds([(0, 3), (5, 7)], 2, (1, 14, 14))
    ends = [
        normal_per_image(s, "initial_noise", [i], (1, 14, 14), noise="keyed")[0]
        for s, i in ((0, 3), (5, 7))
    ]
    assert np.array_equal(way.rows([0, 3]), np.stack(ends))
    drawn = engine()[0]
    sampler = make_sampler("ddim", steps=4)
    image = drawn.draw(sampler, [0], x_T=way.rows([0]))
    assert np.array_equal(image, drawn.draw(sampler, [3], seed=0))


def test_an_interpolation_has_one_class_or_none() -> None:
    for told in ({"classes": [7]}, {"guidance": 0.0}):
        refuse_unlike(make_sampler("ddim", steps=4, num_classes=10, **told), TABLE)
    for told in ({}, {"classes": [1, 2]}):
        with pytest.raises(UserError, match="an interpolation has one class"):
            refuse_unlike(make_sampler("ddim", steps=4, num_classes=10, **told), TABLE)


# Starting from images


def test_levels_are_fractions_or_timesteps() -> None:
    found = [parse_level(text, 1000) for text in ("0", "0.0", "0.5", "1", "1.0", "2", "999")]
    assert found == [-1, -1, 499, 999, 999, 2, 999]
    for text in ("-0.1", "1.5", "1000", "nan", "inf", "half", ""):
        with pytest.raises(UserError, match="--level"):
            parse_level(text, 1000)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("level", [-1, 0, 300, 499, 999])
def test_only_timesteps_up_to_the_level_are_visited_and_all_calls_are_counted(
    name: str, level: int
) -> None:
    spacing = "uniform"
    sampler = replace(make_sampler(name, 20, spacing=spacing), level=level)
    few = sum(t <= level for t in range(0, 1000, 50))
    kind = KINDS[name]
    if 0 < few < kind.needs(max(kind.orders, default=None)).steps:
        with pytest.raises(UserError, match=r"steps or more from level t=.* down, not 1"):
            sampler.check(TABLE)
        return
    drawn, backend = engine()
    card = sampler.card(drawn.schedule)
    assert all(t <= level for t in card["timesteps"]) and len(card["timesteps"]) == few
    seen: list[int] = []
    drawn.draw(sampler, [0], observe=lambda k, at, x: seen.append(at.t))
    assert backend.calls == card["network_calls"] and seen == [*card["timesteps"][1:], -1][:few]


def test_a_level_below_the_lowest_timestep_is_refused() -> None:
    sampler = replace(make_sampler(steps=10, spacing="trailing"), level=50)
    with pytest.raises(UserError, match="level t=50 lies below the lowest of these 10 timesteps"):
        sampler.card(TABLE)


def test_images_at_level_0_come_back_and_higher_ones_change(panel: Panel, tmp_path: Path) -> None:
    manifest, given = panel.call(
        editing_jobs.from_images, panel.name, tmp_path / "none", level=-1, steps=5
    )
    assert manifest["network_calls"] == 0 and manifest["timesteps"] == []
    for i in range(3):  # two images, in turns
        assert np.array_equal(read_png(tmp_path / "none" / f"{i:05d}.png"), given[i % 2])
    if panel.name != "torch":
        return
    manifest, _ = panel.call(
        editing_jobs.from_images, panel.name, tmp_path / "half", level=450, steps=5
    )
    assert manifest["timesteps"] == [400, 200, 0] and manifest["network_calls"] == 3
    assert manifest["start"]["noised_to"] == 400 and manifest["start"]["images_num"] == 2
    assert not np.array_equal(read_png(tmp_path / "half" / "00000.png"), given[0])


def test_points_of_an_interpolation() -> None:
    assert parse_points("3,7", 5, False) == [(5, 3), (5, 7)]
    assert parse_points("0:3, 2:7,4", 5, False) == [(0, 3), (2, 7), (5, 4)]
    for text in ("3", "3,", "a,b", "-1,2", "1:2:3,4", "3.5,4", f"0,{2**63}"):
        with pytest.raises(UserError, match="--interpolate"):
            parse_points(text, 0, False)
    with pytest.raises(UserError, match="no seeds"):
        parse_points("0:1,2", 0, True)


# Eta


@pytest.mark.parametrize("steps, eta", [(10, 1.01), (50, 1.2), (1000, 3.0)])
def test_more_noise_than_a_level_holds_is_refused_before_the_first_call(
    steps: int, eta: float
) -> None:
    drawn, backend = engine()
    for act in (drawn.draw, lambda s, _: s.card(drawn.schedule)):
        with pytest.raises(UserError, match=r"eta .* asks for more noise .* it can be \d") as found:
            act(make_sampler("ddim", steps, eta), [0])
    assert backend.calls == 0
    most = float(str(found.value).split("can be ")[1].split()[0])
    assert 1.0 <= most < eta
    drawn.draw(make_sampler("ddim", min(steps, 50), 1.0), [0])


def test_eta_up_to_the_bound_is_drawn() -> None:
    drawn, _ = engine()
    first, last = TABLE.level(500), TABLE.level(0)
    bound = first.sigma / np.sqrt(1 - (first.alpha / last.alpha) ** 2)
    assert bound > 1
    drawn.draw(make_sampler("ddim", 2, bound * 0.99999), [0])
    with pytest.raises(UserError, match="eta"):
        drawn.draw(make_sampler("ddim", 2, bound * 1.001), [0])


def test_the_plan_of_the_small_model_is_what_these_tests_think() -> None:
    assert make_plan(panel_jobs.small()).shape == (1, 14, 14)
