"""The match of names, layouts, declared inputs and hints of a port: NumPy alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diptych.align.ladder.floors import gate_of
from diptych.align.ladder.judge import FAIL, Finding, Verdict
from diptych.align.ladder.trace import Rung
from diptych.align.ports import reasons
from diptych.align.ports.arrays import fit, given_gradient
from diptych.align.ports.describe import entries
from diptych.align.ports.fault import bad_layer, given_to
from diptych.align.ports.floors import widened
from diptych.align.ports.graphs import layers_of
from diptych.align.ports.hints import hints_for
from diptych.align.ports.hints.case import Case
from diptych.align.ports.hints.layers import ACTIVATIONS
from diptych.align.ports.layers import Layer, match_layers
from diptych.align.ports.layouts import moved_back, moved_over, relaid
from diptych.align.ports.maps import names_text, read_given
from diptych.align.ports.matching import Entry, Given, match
from diptych.align.ports.plan import OUTPUT
from diptych.align.ports.starter import start
from diptych.align.ports.targets import declared_input, made_inputs, target_of
from diptych.errors import UserError


def entry(name: str, *shape: int, order: float = 0.0) -> Entry:
    return Entry(name, shape, order=order)


def _text(why: reasons.Why) -> str:
    return reasons.told(why).en


def test_equal_names_are_matched_first() -> None:
    ours = [entry("a.weight", 4, 4), entry("b.weight", 4, 4)]
    theirs = [entry("b.weight", 4, 4), entry("a.weight", 4, 4)]
    found = match(ours, theirs, Given())
    assert found.weights == {"a.weight": "a.weight", "b.weight": "b.weight"}
    assert set(found.how.values()) == {"name"} and not found.left_reference


def test_other_names_are_matched_by_the_order_of_calls() -> None:
    """Definition order is the other way round; calls decide."""
    ours = [entry(f"block{i}.weight", 4, 4, order=i) for i in range(3)]
    theirs = [entry(f"{n}.kernel", 4, 4, order=i) for i, n in enumerate(("zeta", "beta", "alpha"))]
    found = match(ours, list(reversed(theirs)), Given())
    assert found.weights == {
        "block0.weight": "zeta.kernel",
        "block1.weight": "beta.kernel",
        "block2.weight": "alpha.kernel",
    }


def test_two_arrays_of_one_role_in_a_module_keep_apart() -> None:
    """`w` and `g` are both weights."""
    ours = [entry("a.w", 4, 4), entry("a.g", 4, 4), entry("a.b", 4)]
    theirs = [entry("x.bias", 4), entry("x.g", 4, 4), entry("x.w", 4, 4)]
    found = match(ours, theirs, Given())
    assert found.weights == {"a.w": "x.w", "a.g": "x.g", "a.b": "x.bias"}


def test_a_layers_own_name_outweighs_the_order_of_calls() -> None:
    """Else a port that swaps two layers would be matched so that the fault is undone."""
    ours = [
        entry(f"blocks.{i}.{n}.weight", 4, 4, order=2 * i + k)
        for i in range(2)
        for k, n in enumerate(("gate", "up"))
    ]
    theirs = [
        entry(f"h.{i}.feed.{n}_proj.weight", 4, 4, order=2 * i + (k if i == 0 else 1 - k))
        for i in range(2)
        for k, n in enumerate(("gate", "up"))
    ]
    found = match(ours, theirs, Given()).weights
    assert found == {
        f"blocks.{i}.{n}.weight": f"h.{i}.feed.{n}_proj.weight"
        for i in range(2)
        for n in ("gate", "up")
    }
    ours = [entry(f"up{i}.weight", 4, 4, order=-i) for i in (2, 1)]
    theirs = [entry(f"up{i}.weight_v", 4, 4, order=i) for i in (1, 2)]
    assert match(ours, theirs, Given()).weights["up2.weight"] == "up1.weight_v"


def test_equal_values_decide_before_order() -> None:
    ours = [Entry("a.weight", (2, 2), digest="one"), Entry("b.weight", (2, 2), digest="two")]
    theirs = [Entry("x", (2, 2), digest="two"), Entry("y", (2, 2), digest="one")]
    found = match(ours, theirs, Given())
    assert found.weights == {"a.weight": "y", "b.weight": "x"}
    assert set(found.how.values()) == {"values"}


def test_equal_values_decide_before_equal_names() -> None:
    """The port counts from 1: what it calls fc1 is the reference's fc0; so too a constant norm."""

    def side(first: int) -> list[Entry]:
        found = []
        for i in range(3):
            block = f"blocks.{i + first}"
            found += [
                Entry(f"fc{i + first}.weight", (4, 4), digest=f"w{i}", order=2 * i),
                Entry(f"fc{i + first}.bias", (4,), order=2 * i),
                Entry(f"{block}.fc.weight", (4, 4), digest=f"b{i}", order=2 * i + 1),
                Entry(f"{block}.norm.weight", (4,), order=2 * i + 1),
            ]
        return found

    found = match(side(0), side(1), Given())
    for name, other in found.weights.items():
        number = next(int(c) for c in name if c.isdigit())
        assert other == name.replace(str(number), str(number + 1))
    assert len(found.weights) == 12


def test_names_decide_if_the_port_has_all_of_them() -> None:
    """Two builds of one seed may draw the same numbers for layers in another order."""
    ours = [Entry("a.weight", (2, 2), digest="one"), Entry("b.weight", (2, 2), digest="two")]
    theirs = [
        Entry("b.weight", (2, 2), digest="one"),
        Entry("a.weight", (2, 2), digest="two"),
        Entry("mask", (2, 2)),
    ]
    found = match(ours, theirs, Given()).weights
    assert found == {"a.weight": "a.weight", "b.weight": "b.weight"}


def test_equal_values_of_another_shape_are_no_pair() -> None:
    ours = [Entry("conv.weight", (8, 8, 1, 1), digest="one")]
    found = match(ours, [Entry("fc.weight", (8, 8), digest="one")], Given())
    assert not found.weights and "shape (8, 8, 1, 1)" in _text(
        found.left_reference["conv.weight"][1]
    )


def test_a_map_that_matches_nothing_is_refused() -> None:
    """A misspelt layer or pattern would leave the fault where it was, unsaid."""
    ours, theirs = [entry("fc.weight", 4, 4)], [entry("fc.weight", 4, 4)]
    with pytest.raises(UserError, match=r"rule 'fc\.wieght' matches no weight.*'fc\.weight'"):
        match(ours, theirs, Given(rules={"fc.wieght": "transpose"}))
    assert match(ours, theirs, Given(rules={"output": "jax"})).weights
    layers = [Layer("fc", "Linear", ((2, 3),), 1, True)]
    for given, says in (
        ({"fcc": "fc"}, "the reference calls no layer 'fcc'; did you mean 'fc'"),
        ({"fc": "fcc"}, "the port calls no layer 'fcc'; did you mean 'fc'"),
    ):
        with pytest.raises(UserError, match=says):
            match_layers({}, layers, layers, given)


def test_an_array_without_axes_matches_one_of_one_value() -> None:
    """Jittor has no array without axes."""
    (ours,) = entries({"scale": np.array(2.6, "float32")}, ["scale"], {}, {})
    (theirs,) = entries({"scale": np.array([2.6], "float32")}, ["scale"], {}, {})
    assert match([ours], [theirs], Given()).weights == {"scale": "scale"}
    assert relaid(np.ones(()), (1,)).shape == (1,) and relaid(np.ones(1), ()).shape == ()
    assert relaid(np.ones((1, 1)), ()).shape == (1, 1)


def test_what_is_left_over_has_a_reason() -> None:
    ours = [entry("fc.weight", 4, 8), entry("fc.bias", 4)]
    theirs = [entry("fc.weight", 8, 4), entry("extra.scale", 3)]
    found = match(ours, theirs, Given())
    kind, why = found.left_reference["fc.weight"]
    assert kind == "rule" and "a rule `transpose` would fit" in _text(why)
    kind, why = found.left_reference["fc.bias"]
    assert kind == "" and "nothing left of shape (4,)" in _text(why)
    assert reasons.told(why).zh == "移植已无形状为 (4,) 的数组"
    assert set(found.left_subject) == {"fc.weight", "extra.scale"}


def test_a_weight_left_over_is_told_by_its_namesake() -> None:
    """Not by the first array that a rule would turn; and a layer of another width by its shape."""
    ours = [entry("a.weight", 4, 8), entry("b.weight", 4, 8), entry("c.weight", 5, 3)]
    theirs = [entry("a.weight", 8, 4), entry("b.weight", 8, 4), entry("c.weight", 6, 3)]
    left = match(ours, theirs, Given()).left_reference
    told_of = {name: (kind, _text(why)) for name, (kind, why) in left.items()}
    assert told_of["b.weight"][1].startswith("'b.weight' of the port is (8, 4); a rule")
    assert told_of["c.weight"] == ("shape", "the port's has shape (6, 3), not (5, 3)")


def test_a_declared_rule_moves_a_weight_and_back(tmp_path: Path) -> None:
    path = tmp_path / "names.yaml"
    path.write_text('rules:\n  "*.weight": transpose\n')
    found = match([entry("fc.weight", 4, 8)], [entry("dense.kernel", 8, 4)], read_given(path))
    assert found.weights == {"fc.weight": "dense.kernel"}
    assert found.rules == {"fc.weight": "transpose"}
    kernel = np.arange(24.0).reshape(2, 3, 2, 2)
    assert moved_over(kernel, "hwio").shape == (2, 2, 3, 2)
    assert np.array_equal(moved_back(moved_over(kernel, "hwio"), "hwio"), kernel)


def test_a_port_from_jax_is_matched_by_one_rule() -> None:
    """Other layouts, other words, slashes in the names; vectors are left alone."""
    ours = [
        entry("conv.weight", 8, 3, 5, 5),
        entry("conv.bias", 8),
        entry("bn.weight", 8),
        entry("bn.bias", 8),
        entry("bn.running_mean", 8),
        entry("bn.running_var", 8),
        entry("fc.weight", 4, 8),
        entry("fc.bias", 4),
    ]
    theirs = [
        entry("params/Conv_0/kernel", 5, 5, 3, 8),
        entry("params/Conv_0/bias", 8),
        entry("params/Norm_0/scale", 8),
        entry("params/Norm_0/bias", 8),
        entry("stats/Norm_0/mean", 8),
        entry("stats/Norm_0/var", 8),
        entry("params/Dense_0/kernel", 8, 4),
        entry("params/Dense_0/bias", 4),
    ]
    found = match(ours, theirs, Given(rules={"*": "jax"}))
    assert not found.left_reference and not found.left_subject
    assert found.rules == {"conv.weight": "hwio", "fc.weight": "transpose"}
    assert found.weights["bn.weight"] == "params/Norm_0/scale"
    assert found.weights["bn.running_var"] == "stats/Norm_0/var"
    assert found.weights["conv.bias"] == "params/Conv_0/bias"


def test_the_written_map_is_read_back_and_can_be_corrected(tmp_path: Path) -> None:
    ours, theirs = [entry("a.weight", 2, 2), entry("b.bias", 9)], [entry("x.weight", 2, 2)]
    found = match(ours, theirs, Given())
    text = names_text(found, {"a": "x"}, Given())
    assert "1 of 2 weights" in text and "nothing left of shape (9,)" in text
    path = tmp_path / "names.yaml"
    path.write_text(text)
    given = read_given(path)
    assert given.weights == {"a.weight": "x.weight"} and given.layers == {"a": "x"}
    path.write_text(text.replace('"x.weight"', '"y.weight"'))
    with pytest.raises(UserError, match=r"the port has no weight 'y\.weight'"):
        match(ours, theirs, read_given(path))
    path.write_text("rules:\n  a: turned\n")
    with pytest.raises(UserError, match="rule 'turned'"):
        read_given(path)


def test_layers_without_weights_are_matched_between_their_neighbours() -> None:
    ours = [
        Layer("a", "Linear", ((2, 3),), 1, True),
        Layer("act", "ReLU", ((2, 3),), 2, True),
        Layer("b", "Linear", ((2, 3),), 3, True),
    ]
    theirs = [
        Layer("early", "Relu", ((2, 3),), 1, True),
        Layer("x", "Linear", ((2, 3),), 2, True),
        Layer("late", "Relu", ((2, 3),), 3, True),
        Layer("y", "Linear", ((2, 3),), 4, True),
    ]
    pairs = {"a.weight": "x.weight", "b.weight": "y.weight"}
    assert match_layers(pairs, ours, theirs, {}) == {"a": "x", "b": "y", "act": "late"}


def test_another_padding_is_the_partner_of_a_padding() -> None:
    """Else a zero padding for a reflecting one is named as code beside it."""
    size = ((1, 2, 6, 6),)
    ours = [Layer("pad", "ReflectionPad2d", size, 0, True), Layer("a", "Conv2d", size, 1, True)]
    theirs = [Layer("zero", "ZeroPad2d", size, 0, True), Layer("x", "Conv", size, 1, True)]
    assert match_layers({"a.weight": "x.weight"}, ours, theirs, {})["pad"] == "zero"


def test_a_layer_that_cannot_be_fed_is_named_not_what_follows_it() -> None:
    """A convolution that pads for itself, and a port that pads before: the inputs are unlike."""
    order = ["norm", "out"]
    calls = {p: {"order": i, "leaf": True} for i, p in enumerate(order)}
    truth = SimpleNamespace(rung=lambda _: Rung())
    about = {"order": order, "calls": calls, "truth": truth, "subject": {"layers": {}}}
    seen: Any = SimpleNamespace(**about)
    rows = [("free/norm", 0.0), ("free/out", 0.9), (f"free/{OUTPUT}", 0.9)]
    found = Verdict("layers", FAIL, gate_of("layers"))
    found.findings = [Finding(n, "port", "max", error, 1e-7, 1e-6, "") for n, error in rows]
    assert bad_layer(seen, found)[:3] == ("out", "value", ("norm", ""))
    found.findings = found.findings[2:]
    assert bad_layer(seen, found)[:3] == ("", "between", ("out", ""))


def test_layouts_are_laid_over_each_other_only_if_they_can() -> None:
    image = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    last = fit(image, (2, 4, 5, 3))
    assert last is not None and np.array_equal(last, image.transpose(0, 2, 3, 1))
    flat = fit(image, (2, 60))
    assert flat is not None and np.array_equal(flat, image.reshape(2, 60))
    assert fit(image, (2, 20, 3)) is None  # channels would be mixed with pixels
    assert fit(image, (7, 7)) is None


def test_inputs_are_declared_and_made() -> None:
    assert declared_input("x=2,3:-1..1") == ("x", {"shape": [2, 3], "low": -1.0, "high": 1.0})
    name, t = declared_input("t=4:0..10:int64")
    made = made_inputs({name: t, "x": {"shape": [2, 3], "low": -1}}, 0, "here")
    assert made["t"].dtype == np.int64 and set(made["t"]) <= set(range(10))
    assert made["x"].dtype == np.float32 and made["x"].min() >= -1 and made["x"].max() <= 1
    assert np.array_equal(
        made["x"], made_inputs({"t": t, "x": {"shape": [2, 3], "low": -1}}, 0, "here")["x"]
    )
    for wrong in ("x=two", "x=2:a..b", "=2", "x=2:::nothing"):
        with pytest.raises(UserError, match="--input"):
            declared_input(wrong)
    with pytest.raises(UserError, match="'hi' is not known; did you mean 'high'"):
        made_inputs({"x": {"shape": [2], "hi": 3}}, 0, "here")
    for declared in ({}, [[2, 3]]):
        with pytest.raises(UserError, match="which inputs"):
            made_inputs(declared, 0, "reference.py")  # type: ignore[arg-type]
    for wrong_setting, says in (
        ({"dtype": "float64"}, "expected float32, bool or integers"),
        ({"dtype": "complex64"}, "expected float32, bool or integers"),
        ({"low": 1, "high": -1}, "expected low below high"),
        ({"low": float("nan")}, "expected low below high"),
        ({"low": 5, "high": 5, "dtype": "int64"}, "expected low below high"),
        ({"low": 5, "dtype": "int64"}, "give its high"),
    ):
        with pytest.raises(UserError, match=says):
            made_inputs({"x": {"shape": [2], **wrong_setting}}, 0, "here")


def test_targets(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("import jittor\n")
    assert target_of(str(path)).framework == "jittor"
    assert target_of(f"{path}:make").function == "make"
    path.write_text('FRAMEWORK = "numpy"\nimport torch\n')
    assert target_of(str(path)).framework == "numpy"
    path.write_text('FRAMEWORK = "tensorflow"\n')
    with pytest.raises(UserError, match="'tensorflow' is not known"):
        target_of(str(path))
    path.write_text("def build(:")
    with pytest.raises(UserError, match=r"net.py, line 1: not Python"):
        target_of(str(path))
    (tmp_path / "net.pt").touch()
    for wrong, says in (
        (str(tmp_path / "net.pt"), "give file.py"),
        ("none.py", "no such file"),
        ("none.onnx", "no such file"),
        ("no.such:f", "not found"),
        ("word", "give file.py"),
    ):
        with pytest.raises(UserError, match=says):
            target_of(wrong)


def test_the_two_files_to_begin_with(tmp_path: Path) -> None:
    for framework in ("jittor", "torch", "numpy"):
        paths = start(tmp_path / framework, None, framework, {})
        assert [target_of(str(p)).framework for p in paths] == ["torch", framework]
    with pytest.raises(UserError, match="is there already"):
        start(tmp_path / "numpy", None, "numpy", {})
    made = start(tmp_path / "own", "pkg.net:Net", "jittor", {"x": {"shape": [1, 2]}})
    assert "from pkg.net import Net" in made[0].read_text()
    with pytest.raises(UserError, match="--model Net"):
        start(tmp_path / "other", "Net", "jittor", {})


# hints: each is planted in NumPy, and told; on a sound layer with other noise none is


def case(kind: str, x, y, z, weights=None, settings=None, name="fed/layer", rung="layers"):  # type: ignore[no-untyped-def]
    truth = Rung({"in/layer/0": x.astype(np.float32), name: y})
    given = {f"layer.{k}": v.astype(np.float32) for k, v in (weights or {}).items()}
    call = {"kind": kind, "settings": settings or {}}
    about = {"stopped": []}
    port = Rung({name: z.astype(np.float32)})
    return Case(
        "layer", call, {"settings": {}}, name, rung, truth, port, given, about, about, "", x
    )


def told(each) -> list[str]:  # type: ignore[no-untyped-def]
    return [hint["key"] for hint in hints_for(each)]


def test_hints_name_the_planted_fault() -> None:
    draw = np.random.default_rng(0)
    x = draw.standard_normal((4, 6)).astype(np.float32).astype(np.float64)
    w, b = (draw.standard_normal(s).astype(np.float32).astype(np.float64) for s in ((6, 6), 6))
    linear = {"weight": w, "bias": b}
    y = x @ w.T + b
    assert told(case("Linear", x, y, x @ w.T, linear)) == ["no_bias"]
    assert told(case("Linear", x, y, x @ w + b, linear)) == ["transposed"]
    assert told(case("Linear", x, y, 0.5 * y, linear)) == ["factor"]
    assert told(case("Linear", x, y, np.roll(y, 1, 0), linear)) == ["order"]
    assert told(case("Linear", x, y, y.astype(np.float16), linear)) == ["dtype"]
    e = np.exp(x)
    soft, other = e / e.sum(1, keepdims=True), e / e.sum(0, keepdims=True)
    assert told(case("Softmax", x, soft, other)) == ["axis"]

    def norm(eps: float) -> np.ndarray:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)

    found = hints_for(case("LayerNorm", x, norm(1e-5), norm(1e-3), settings={"eps": 1e-5}))
    assert found == [{"key": "eps", "eps": 1e-3, "own": 1e-5}]
    tanh = ACTIVATIONS["GELU (tanh)"](x)
    assert told(case("GELU", x, ACTIVATIONS["GELU (exact)"](x), tanh)) == ["activation"]
    zero = np.zeros_like(y)
    assert told(case("Linear", x, y, zero, name="layer.weight", rung="gradients")) == [
        "no_gradient"
    ]


def test_the_nearest_eps_is_told_of_a_small_error() -> None:
    """Every eps below 1e-5 explains the error of an eps of 1e-6 within a few roundings."""
    x = np.random.default_rng(3).normal(size=(64, 128))

    def norm(eps: float) -> np.ndarray:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)

    found = hints_for(case("LayerNorm", x, norm(1e-5), norm(1e-6), settings={"eps": 1e-5}))
    assert found == [{"key": "eps", "eps": 1e-6, "own": 1e-5}]


def test_hints_follow_the_reason_not_the_words() -> None:
    x = np.ones((1, 2))

    def of(reason: Any, name: str = "w", left: tuple[str, ...] = ()) -> list[str]:
        given = case("Linear", x, x, x, name=name, rung="weights")
        subject = {"stopped": [], "match": {"left_reference": dict.fromkeys(left)}}
        words = "the rule of a shape is one array with no partner"
        return told(replace(given, text=words, subject=subject, reason=reason))

    assert of("") == [] and of("untied") == ["untied"]
    assert of("layout") == ["transposed_shape", "shape"]
    assert of("shape", "fc.bias", ("fc.bias",)) == ["no_bias", "shape"]
    assert of("rule", "fc.weight", ("fc.weight",)) == ["transposed_shape"]


def test_a_hint_that_cannot_be_tested_hides_no_verdict() -> None:
    """A transposed convolution, channels last, a stride in words, and whatever else raises."""
    draw = np.random.default_rng(3)
    x = draw.standard_normal((2, 3, 5, 5))
    w, y = draw.standard_normal((3, 4, 3, 3)), draw.standard_normal((2, 4, 7, 7))
    turned = case("ConvTranspose2d", x, y, y + 1, {"weight": w}, {"stride": [1, 1]})
    assert told(turned) == []
    own = draw.standard_normal((4, 3, 3, 3))
    named = case("Conv2d", x, y[..., :5, :5], y[..., 1:6, 1:6], {"weight": own}, {"stride": "x"})
    assert told(named) == []
    last = draw.standard_normal((2, 5, 5, 4))
    running = {n: np.ones(4) for n in ("running_mean", "running_var", "weight", "bias")}
    assert told(case("BatchNorm", last, last, last + 0.3, running)) == []
    odd = case("LayerNorm", last, last, last + 0.3, settings={"eps": "small"})
    assert told(odd) == []


def test_masked_values_are_no_sign_of_a_fault() -> None:
    y = np.array([1.0, -np.inf, 2.0])
    assert told(case("Mask", y, y, y)) == []
    found = hints_for(case("Mask", y, y, np.array([np.nan, -np.inf, 2.0])))
    assert found == [{"key": "not_finite", "count": 1}]


def test_no_hint_is_told_of_mere_noise() -> None:
    draw = np.random.default_rng(1)
    x, w = draw.standard_normal((4, 6)), draw.standard_normal((6, 6))
    y = x @ w.T
    noisy = y * (1 + 1e-5 * draw.standard_normal(y.shape))
    assert told(case("Linear", x, y, noisy, {"weight": w, "bias": np.ones(6)})) == []


def test_the_hint_on_adam_recovers_its_eps() -> None:
    g = given_gradient("w", (50,), 1).astype(np.float64)
    right, wrong = (-1e-3 * g / (np.abs(g) + eps) for eps in (1e-8, 3.16e-7))
    each = case("", g, right, wrong, name="step 1/w", rung="update")
    found = hints_for(each)
    assert found[0]["key"] == "adam_eps" and found[0]["times"] == pytest.approx(31.6, rel=0.02)


def test_the_floor_of_a_sum_grows_with_its_terms() -> None:
    """Jittor adds one value after another: a loss over 1,536 values was off by 20 roundings."""
    draws = np.random.default_rng(2).random(1536).astype(np.float32)
    one_by_one = np.float32(0)
    for value in draws:
        one_by_one += value
    off = abs(float(one_by_one) / float(draws.astype(np.float64).sum()) - 1)
    about = {"outputs": [[2, 3, 16, 16]], "calls": {}}
    narrow = [Finding("loss", "port", "max", off, 5.96e-8, 16 * 5.96e-8)]
    (wide,) = widened("loss", narrow, Rung(), {}, about)
    assert off < wide.gate and wide.floor == pytest.approx(5.96e-8 * 1536**0.5 / 2)
    assert wide.gate == pytest.approx(16 * wide.floor)
    assert widened("layers", narrow, Rung(), {}, about) == narrow


def test_a_step_is_known_to_one_rounding_of_its_weight() -> None:
    truth = Rung({"step 1/w": np.full(3, 1e-4)})
    found = [Finding("step 1/w", "port", "max", 6e-4, 1e-6, 1.6e-5)]
    (wide,) = widened("update", found, truth, {"w": np.ones(3)}, {})
    assert wide.floor == pytest.approx(5.96e-4) and not wide.failed


def test_a_shortcut_called_before_its_block_keeps_its_partner() -> None:
    """Five norms of one shape; the port calls the shortcut first and names nothing alike."""

    def block(names: list[str], feeds: dict[str, str], start: int) -> list[Entry]:
        shapes = {"conv1": (8, 4, 3, 3), "conv2": (8, 8, 3, 3), "short": (8, 4, 1, 1)}
        found = []
        for i, name in enumerate(names):
            shape = next((s for n, s in shapes.items() if name == n), (8,))
            after = feeds.get(name, "")
            found.append(Entry(f"{name}.weight", shape, order=start + i, after=after))
        return found

    feeds = {"bn1": "conv1", "bn2": "conv2", "short_bn": "short"}
    ours = block(["conv1", "bn1", "conv2", "bn2", "short", "short_bn"], feeds, 0)
    partner = dict(
        zip(("conv1", "bn1", "conv2", "bn2", "short", "short_bn"), "qrstuv", strict=True)
    )
    theirs = [
        Entry(f"{partner[n]}.weight", e.shape, order=i, after=partner.get(e.after, ""))
        for i, n in enumerate(("short", "short_bn", "conv1", "bn1", "conv2", "bn2"))
        for e in ours
        if e.module == n
    ]
    found = match(ours, theirs, Given())
    assert found.weights == {f"{a}.weight": f"{b}.weight" for a, b in partner.items()}


def test_a_scope_with_dots_is_the_layers() -> None:
    """PyTorch writes `/down_blocks.0/norm/Add` for the module `down_blocks.0.norm`."""
    values = [
        (n, np.zeros((2, 4))) for n in ("/net/blocks.0/norm/Mul", "/net/blocks.0/norm/Add", "y")
    ]
    paths = ["net.blocks.0.norm", "net.blocks.1.norm"]
    found = layers_of(values, {}, {}, paths, {}, lambda *_: True)
    assert found == {"net.blocks.0.norm": "/net/blocks.0/norm/Add"}
    # The last value is the graph's output, `y`; its node tells the scope.
    scopes = {"y": "/net/blocks.0/norm/Shift"}
    found = layers_of(values, {}, {}, paths, {}, lambda *_: True, scopes)
    assert found == {"net.blocks.0.norm": "y"}


def test_two_exchanged_weights_are_told() -> None:
    draw = np.random.default_rng(4)
    q, k = draw.standard_normal((2, 5, 5))
    one = case("Linear", q, q, k, {"q": q, "k": k}, name="layer.q", rung="weights")
    assert hints_for(one) == [{"key": "another_weight", "name": "layer.k"}]


def test_a_last_norm_is_not_taken_for_a_feed_forwards() -> None:
    """`norm` resembles `ffn_norm` more than `ln` by letters; `ln` is a norm by meaning."""

    def side(names: list[str]) -> list[Entry]:
        return [Entry(f"{n}.weight", (8,), order=i) for i, n in enumerate(names)]

    ours = [f"blocks.{i}.{n}" for i in range(3) for n in ("ln1", "ln2")] + ["norm"]
    theirs = [f"h.{i}.{n}_norm" for i in range(3) for n in ("attention", "ffn")] + ["ln"]
    found = match(side(ours), side(theirs), Given())
    assert found.weights == {
        f"{a}.weight": f"{b}.weight" for a, b in zip(ours, theirs, strict=True)
    }


def test_code_between_two_layers_is_judged_on_what_the_first_gave() -> None:
    """A functional GELU by tanh between two linear layers: the activation is told, no digits."""
    h = np.random.default_rng(5).standard_normal((4, 6))
    exact, tanh = (ACTIVATIONS[f"GELU ({n})"](h) for n in ("exact", "tanh"))
    truth = SimpleNamespace(rung=lambda _: Rung({"free/fc1": h}))
    given = given_to(SimpleNamespace(truth=truth), "mlp", "layers", "into/fc2/0", "fc1")
    assert given is not None
    one = case("MLP", given, exact, tanh, name="into/fc2/0")
    assert told(one) == ["activation"]
