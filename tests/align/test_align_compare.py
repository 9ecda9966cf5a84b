"""The ladder's comparison: traces in folders, distances, floors and verdicts; NumPy only."""

from __future__ import annotations

import json

import numpy as np
import pytest

from diptych.align.ladder import measures
from diptych.align.ladder.floors import Passes
from diptych.align.ladder.judge import judge
from diptych.align.ladder.rungs import LADDER
from diptych.align.ladder.tolerances import tolerances
from diptych.align.ladder.trace import Rung, Tracer, read_trace
from diptych.errors import UserError

LAYERS = ("free/a", "free/b", "fed/a", "fed/b")


def truth(seed=0, names=LAYERS):
    generator = np.random.default_rng(seed)
    return Rung({name: generator.standard_normal((4, 8)) for name in names})


def noisy(rung, relative, seed):
    """The rung with relative noise, as of float32."""
    generator = np.random.default_rng(seed)
    return Rung(
        {
            name: (a * (1 + relative * generator.standard_normal(a.shape))).astype(np.float32)
            for name, a in rung.arrays.items()
        }
    )


def panel(rung, seed, relative=1e-7):
    clean = noisy(rung, relative, seed)
    return Passes(clean, [noisy(clean, relative, seed + 1), noisy(clean, relative, seed + 2)])


def planted(passes, name, relative):
    """The panel with a fault, which is in all of its passes."""
    rows = []
    for rung in (passes.clean, *passes.nudged):
        rows.append(Rung({**rung.arrays, name: rung.arrays[name] * np.float32(1 + relative)}))
    return Passes(rows[0], rows[1:])


def test_two_sound_panels_pass():
    right = truth()
    verdict = judge("layers", right, {"torch": panel(right, 10), "jittor": panel(right, 20)})
    assert verdict.verdict == "pass" and verdict.first_failure is None
    assert 0 < verdict.distance("torch") < 1e-6 and verdict.apart > 0


@pytest.mark.parametrize("who", ["torch", "jittor"])
@pytest.mark.parametrize("relative", [1e-4, 3e-5])
def test_a_planted_fault_is_found_and_named(who, relative):
    """An instrument that cannot fail is no evidence."""
    right = truth()
    panels = {"torch": panel(right, 10), "jittor": panel(right, 20)}
    panels[who] = planted(panels[who], "fed/b", relative)
    verdict = judge("layers", right, panels)
    assert verdict.verdict == "fail"
    assert (verdict.first_failure.name, verdict.first_failure.panel) == ("fed/b", who)
    assert {f.panel for f in verdict.findings if f.failed} == {who}


def test_two_panels_with_the_same_fault_do_not_excuse_each_other():
    right = truth()
    panels = {
        n: planted(panel(right, i), "free/a", 1e-2) for i, n in ((10, "torch"), (20, "jittor"))
    }
    verdict = judge("layers", right, panels)
    assert {f.panel for f in verdict.findings if f.failed} == {"torch", "jittor"}


@pytest.mark.parametrize("fault", ["nan", "missing", "shape", "extra"])
def test_what_cannot_be_compared_fails(fault):
    right = truth()
    panels = {"torch": panel(right, 10), "jittor": panel(right, 20)}
    arrays = panels["jittor"].clean.arrays
    if fault == "nan":
        arrays["free/b"] = np.full_like(arrays["free/b"], np.nan)
    elif fault == "missing":
        del arrays["free/b"]
    elif fault == "shape":
        arrays["free/b"] = arrays["free/b"][:2]
    else:
        arrays["free/c"] = arrays["free/b"]
    rung = "operators" if fault == "extra" else "layers"
    verdict = judge(rung, right, panels)
    assert verdict.verdict == "fail"
    assert verdict.first_failure.name == ("free/c" if fault == "extra" else "free/b")
    assert verdict.first_failure.panel == "jittor"


def test_exact_rungs_compare_bits_and_facts():
    right = Rung({"x": np.array([0.0, 1.0], np.float32)}, {"train.lr": 1e-3})
    zero = Rung({"x": np.array([-0.0, 1.0], np.float32)}, {"train.lr": 1e-3})
    other = Rung({"x": right.arrays["x"]}, {"train.lr": 2e-3})
    assert judge("data", right, {"a": Passes(right), "b": Passes(right)}).verdict == "pass"
    assert judge("data", right, {"a": Passes(right), "b": Passes(zero)}).first_failure.name == "x"
    found = judge("data", right, {"a": Passes(right), "b": Passes(other)}).first_failure
    assert found.name == "train.lr" and "0.002" in found.text


def test_a_growing_rung_allows_more_later_and_less_at_first():
    """A chain's floor is the largest up to a step: an early error is not excused by a late one."""
    names = [f"ddim/x {k:03d}" for k in range(10)]
    right = truth(names=names)
    passes = [panel(right, seed, 1e-7) for seed in (10, 20)]
    late = passes[0].nudged[0].arrays
    late[names[8]] = late[names[8]] * np.float32(1 + 1e-4)
    for step, verdict in ((1, "fail"), (9, "pass")):
        bent = planted(passes[1], names[step], 5e-5)
        assert judge("solver", right, {"a": passes[0], "b": bent}).verdict == verdict


def test_a_gradient_of_zero_is_not_judged_by_its_own_size():
    right = Rung({"total norm": np.float64(1.0), "w": np.ones(4), "b": np.full(4, 1e-12)})
    noise = [Rung({**right.arrays, "b": np.array([3e-10, -1e-10, 0, 2e-10]) * s}) for s in (1, -1)]
    verdict = judge("gradients", right, {"a": Passes(noise[0]), "b": Passes(noise[1])})
    assert all(f.error < 1e-3 for f in verdict.findings if f.measure == "max")


def test_distances_are_what_they_say():
    b = np.array([3.0, 4.0])
    a = np.array([3.0, 4.4])
    found = measures.distances(("max", "mean"), a, b)
    assert found["max"] == pytest.approx(0.1) and found["mean"] == pytest.approx(0.05)
    turned = np.array([3.0 - 4e-6, 4.0 + 3e-6])
    assert measures.distances(("angle",), turned, b)["angle"] == pytest.approx(1e-6, rel=1e-4)
    pixels = measures.distances(("pixels",), np.uint8([1, 2, 3, 4]), np.uint8([1, 2, 3, 5]))
    assert pixels["pixels"] == 0.25


def test_equal_values_that_are_not_finite_are_no_difference():
    """-inf of an attention mask is on both sides: the rest is measured; unequal ones fail."""
    b = np.array([-np.inf, np.nan, 2.0, 4.0])
    a = np.array([-np.inf, np.nan, 2.0, 4.4], np.float32)
    assert measures.distances(("max",), a, b)["max"] == pytest.approx(0.1, rel=1e-6)
    for at, other in ((0, np.inf), (0, 1.0), (1, 1.0), (2, np.nan), (3, np.inf)):
        wrong = a.copy()
        wrong[at] = other
        assert measures.distances(("max", "angle"), wrong, b)["max"] == np.inf


def test_every_rung_has_a_gate_with_reason_and_date():
    for name in LADDER:
        gate = tolerances().rungs[name]
        assert gate.reason and len(gate.date) == 10
        assert gate.k == 0 if LADDER[name].gate == "exact" else gate.k >= gate.measured


def test_a_trace_comes_back(tmp_path):
    with Tracer(tmp_path / "t", "me") as trace:
        trace.add("layers", "b", np.arange(3))
        trace.add("layers", "a", np.float32([1, 2]))
        trace.fact("config", "lr", 0.1)
    read = read_trace(tmp_path / "t")
    assert read.about["name"] == "me"
    assert list(read.rung("layers").arrays) == ["b", "a"]
    assert read.rung("layers").arrays["a"].dtype == np.float32
    assert read.rung("config").facts == {"lr": 0.1}


def test_what_a_trace_refuses(tmp_path):
    folder = tmp_path / "t"
    with pytest.raises(UserError, match="twice"), Tracer(folder, "me") as trace:
        trace.add("a", "x", [1])
        trace.add("a", "x", [1])
    with pytest.raises(UserError, match="in one go"), Tracer(folder, "me") as trace:
        trace.begin("a")
        trace.begin("b")
        trace.begin("a")
    with pytest.raises(UserError, match=r"trace\.json: not found"):
        read_trace(folder)


DAMAGES = {
    "schema": ({"schema": 7}, "has schema 7"),
    "kind": ({"kind": "x"}, "is not a trace"),
    "rungs": ({"rungs": {"a": 3}}, "list of rungs"),
}


@pytest.mark.parametrize("change, words", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_trace_of_another_schema_is_refused(tmp_path, change, words):
    with Tracer(tmp_path, "me") as trace:
        trace.add("a", "x", [1])
    head = json.loads((tmp_path / "trace.json").read_text())
    (tmp_path / "trace.json").write_text(json.dumps(head | change))
    with pytest.raises(UserError, match=words):
        read_trace(tmp_path)


def test_a_trace_that_lost_something_is_refused(tmp_path):
    with Tracer(tmp_path, "me") as trace:
        trace.add("a", "x", [1])
        trace.add("b", "x", [1])
    (tmp_path / "a.safetensors").unlink()
    (tmp_path / "b.safetensors").write_bytes(b"nonsense")
    read = read_trace(tmp_path)
    for rung, words in (("a", "is missing"), ("b", "is damaged"), ("c", "no rung 'c'")):
        with pytest.raises(UserError, match=words):
            read.rung(rung)
