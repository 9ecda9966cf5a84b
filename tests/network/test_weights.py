"""Initial weights are keyed PyTorch defaults; weights that do not fit are refused by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from diptych.config.load import load_config
from diptych.errors import UserError
from diptych.network.parameters import check_weights, initial_weights, parameter_table
from diptych.network.plan import Plan, make_plan
from diptych.runs.checkpoint import weights_sha256
from diptych.types import Weights


def plan_of(preset: str = "tiny", *changes: str) -> Plan:
    return make_plan(load_config(preset, list(changes)))


@pytest.fixture(scope="module")
def weights() -> Weights:
    return initial_weights(plan_of(), 0)


def test_initial_weights_are_pytorchs_defaults(weights: Weights) -> None:
    """Weight and bias uniform in +-1 / sqrt(fan_in); norms 1 and 0."""
    table = parameter_table(plan_of())
    assert list(weights) == list(table)
    for name, array in weights.items():
        assert array.dtype == np.float32 and array.shape == table[name].shape
        module = name.rpartition(".")[0]
        if "norm" in module.rpartition(".")[2]:
            assert np.all(array == (1 if name.endswith("weight") else 0))
            continue
        bound = 1 / math.sqrt(math.prod(weights[f"{module}.weight"].shape[1:]))
        assert np.abs(array).max() <= np.float32(bound)
        assert stats.kstest(array.ravel() / bound, "uniform", (-1, 2)).pvalue > 1e-5, name


def test_initial_weights_are_keyed_and_stable(weights: Weights) -> None:
    again = initial_weights(plan_of(), 0)
    assert all(np.array_equal(weights[name], again[name]) for name in weights)
    other = initial_weights(plan_of(), 1)
    drawn = [name for name in weights if "norm" not in name]
    assert all(
        not np.any(weights[name] == other[name]) for name in drawn if weights[name].size < 999
    )
    table = parameter_table(plan_of())
    first = {round(float(weights[name].flat[0]) / table[name].bound, 5) for name in drawn}
    assert len(first) == len(drawn), "two arrays share their stream"
    # A change here changes every run: it belongs under "Numerics" in the change log.
    expected = "dfb2a3552235d12834e668ca0e9ba797d0568d40a98708e1902e9a16b40fb773"
    assert weights_sha256(weights) == expected


# Refusals


def test_whole_weights_pass(weights: Weights) -> None:
    check_weights(plan_of(), weights, "file")
    check_weights(plan_of(), dict(reversed(weights.items())), "file")


def test_what_is_missing_extra_or_misshapen_is_named(weights: Weights) -> None:
    for name in list(weights)[::5]:
        every_fault_is_named(weights, name)


def every_fault_is_named(weights: Weights, name: str) -> None:
    without = {key: array for key, array in weights.items() if key != name}
    shape = weights[name].shape
    turned = np.zeros((*shape, 1), np.float32)
    faults = [
        (without, f"weight '{name}' is missing"),
        ({**without, name + "x": weights[name]}, f"weight '{name}' is missing"),
        ({**weights, name + "x": weights[name]}, f"weight '{name}x' is not in"),
        (
            {**weights, name: turned},
            f"weight '{name}' is {turned.shape}, this config needs {shape}",
        ),
    ]
    for given_weights, message in faults:
        with pytest.raises(UserError) as error:
            check_weights(plan_of(), given_weights, "some/file")
        assert str(error.value).startswith(f"some/file: {message}")
        assert "config" in str(error.value) and "\n" not in str(error.value)


def test_weights_of_another_width_name_both_shapes(weights: Weights) -> None:
    with pytest.raises(UserError, match=r"'temb.dense.0.weight' is \(128, 32\).*\(256, 64\)"):
        check_weights(plan_of("tiny", "model.ch=64"), weights, "file")


# The identity of weights


def test_the_identity_is_of_names_shapes_and_bytes() -> None:
    weights = {"a": np.arange(6, dtype=np.float32), "b": np.zeros((2, 3), np.float32)}
    identity = weights_sha256(weights)
    assert weights_sha256(dict(reversed(weights.items()))) == identity
    assert weights_sha256({**weights, "a": np.arange(12, dtype=np.float32)[::2] / 2}) == identity
    changed: list[Weights] = [
        {"a": weights["a"], "c": weights["b"]},
        {**weights, "b": weights["b"].T.copy()},
        {**weights, "b": -weights["b"]},
        {**weights, "a": np.nextafter(weights["a"], np.float32(9))},
        {"a": weights["a"]},
    ]
    assert len({identity, *map(weights_sha256, changed)}) == 1 + len(changed)
