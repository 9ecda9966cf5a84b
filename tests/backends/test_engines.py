"""ONNX and OpenVINO: files for other programs, and engines that only predict."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from click.testing import CliRunner

import diptych
import engine_jobs as jobs
from diptych import backends
from diptych.align.ladder.climb import LadderRequest
from diptych.cli import cli
from diptych.errors import UserError
from diptych.network.own import OwnPlan
from diptych.runs.checkpoint import weights_sha256
from diptych.weights.convert import convert
from diptych.weights.find import find_weights

ENGINES = ("onnx", "openvino")
SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}
CLOSE = 2e-5  # of values about 1; a planted 1e-3 in one weight moves them by 1e-4


@pytest.fixture(scope="module", autouse=True)
def _installed():
    for name in ("onnx", "onnxruntime", "openvino"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The same model as safetensors, ONNX and OpenVINO."""
    folder = tmp_path_factory.mktemp("engines")
    found = {"torch": folder / "model.safetensors"}
    jobs.write_model(found["torch"], jobs.settings())
    for name in ENGINES:
        found[name] = folder / f"model{SUFFIX[name]}"
        said = convert(str(found["torch"]), found[name])
        assert "opset 17" in said["form"] and said["weights"] == "ema"
    return found


@pytest.fixture(scope="module")
def run(places):
    """Call a written file as another program would: name -> function of named inputs."""
    import onnxruntime
    import openvino

    session = onnxruntime.InferenceSession(str(places["onnx"]), providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(
        str(places["openvino"]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return {
        "onnx": lambda given: session.run(["y"], given)[0],
        "openvino": lambda given: np.array(compiled(given)["y"]),
    }


@pytest.fixture(scope="module")
def expected(places, panels):
    """Inputs, and the PyTorch panel's prediction for the classes and for no class."""
    if "torch" not in panels:
        pytest.skip("torch is not installed")
    x = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32)
    t, classes = np.array([0, 500, 999]), np.array([2, 0, 1])
    told, untold = (
        panels["torch"].call(jobs.predicted, places["torch"], x, t, each)
        for each in (classes, np.full(3, 3))
    )
    assert abs(told - untold).max() > 1e-2
    return x, t, classes, told, untold


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("guidance", [1.0, 0.0, 2.5])
def test_a_file_computes_the_network_with_classes_and_guidance(run, expected, name, guidance):
    x, t, classes, told, untold = expected
    wanted = (1 - guidance) * untold + guidance * told
    given = {"x": x, "t": t, "classes": classes, "guidance": np.array(guidance, np.float32)}
    assert abs(run[name](given) - wanted).max() < CLOSE
    for i in range(len(x)):  # the batch size is free; one time and one class serve all
        row = {**given, "x": x[[i, i]], "t": t[[i]], "classes": classes[[i]]}
        assert abs(run[name](row) - wanted[[i, i]]).max() < CLOSE


@pytest.mark.parametrize("name", ENGINES)
def test_a_file_is_read_as_the_weights_that_it_came_from(places, name):
    first, found = (find_weights(str(places[key])) for key in ("torch", name))
    assert found.config == first.config and found.kind == "ema"
    assert weights_sha256(found.weights) == weights_sha256(first.weights)
    again = places[name].with_name(f"again{SUFFIX[name]}")
    convert(str(places[name]), again)
    assert again.read_bytes() == places[name].read_bytes()


@pytest.mark.parametrize("size", ["8x12", "12x8"])
def test_images_that_are_no_squares(panels, tmp_path, size):
    """Written, read back, and the same function in both engines."""
    config = jobs.settings(f"data.image_size={size}")
    jobs.write_model(tmp_path / "m.safetensors", config)
    x = np.random.default_rng(0).standard_normal((3, *config.data.shape)).astype(np.float32)
    t, classes = np.array([0, 500, 999]), np.array([2, 0, 1])
    path = tmp_path / "m.safetensors"
    wanted = panels["torch"].call(jobs.predicted, path, x, t, classes)
    for name in ENGINES:
        out = tmp_path / f"m{SUFFIX[name]}"
        convert(str(path), out)
        assert find_weights(str(out)).config == config
        assert abs(diptych.load(out, name).predict(x, t, classes) - wanted).max() < CLOSE


def test_a_changed_graph_is_refused(places, tmp_path):
    import onnx

    model = onnx.load(places["onnx"])
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 1e-3
    onnx.save(model, tmp_path / "eps.onnx")
    text = places["openvino"].read_text()
    assert 'strides="2, 2"' in text
    (tmp_path / "pads.xml").write_text(text.replace('pads_end="1, 1"', 'pads_end="2, 2"'))
    content = places["openvino"].with_suffix(".bin").read_bytes()
    (tmp_path / "pads.bin").write_bytes(content)
    (tmp_path / "bits.xml").write_text(text)
    (tmp_path / "bits.bin").write_bytes(content[:64] + bytes(4) + content[68:])
    for name in ("eps.onnx", "pads.xml", "bits.xml"):
        with pytest.raises(UserError, match="its graph was changed after Diptych wrote it"):
            find_weights(str(tmp_path / name))


def test_foreign_and_damaged_files_are_refused_by_name(places, tmp_path):
    import onnx

    model = onnx.load(places["onnx"])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    (tmp_path / "half.onnx").write_bytes(places["onnx"].read_bytes()[:1000])
    (tmp_path / "half.xml").write_bytes(places["openvino"].read_bytes()[:1000])
    (tmp_path / "alone.xml").write_bytes(places["openvino"].read_bytes())
    for name, said in {
        "foreign.onnx": "was not written by diptych convert",
        "half.onnx": "is not an ONNX file, or damaged",
        "half.xml": "is not an OpenVINO file, or damaged",
        "alone.xml": r"alone\.bin: not found; expected OpenVINO's weights",
    }.items():
        with pytest.raises(UserError, match=said):
            find_weights(str(tmp_path / name))


def test_conversion_is_safe(places, tmp_path):
    source = str(places["torch"])
    with pytest.raises(UserError, match=r"writes a \.xml file; name it model\.xml"):
        convert(source, tmp_path / "model.bin", "openvino")
    (tmp_path / "model.bin").write_text("mine")
    with pytest.raises(UserError, match=r"model\.bin: exists"):
        convert(source, tmp_path / "model.xml")
    assert (tmp_path / "model.bin").read_text() == "mine"
    convert(source, tmp_path / "model.xml", overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {"model.bin", "model.xml"}


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_draws_what_the_panel_draws(places, panels, name):
    """Guided, with two keyed streams; from the weights and from the converted file."""
    asked = {"num": 3, "solver": "ddim", "steps": 4, "eta": 1.0, "guidance": 2.0, "noise": "keyed"}
    wanted = panels["torch"].call(jobs.drawn, places["torch"], "torch", **asked)
    for source in (places["torch"], places[name]):
        found = jobs.drawn(source, name, **asked)
        assert abs(found - wanted).max() < 1e-3 * abs(wanted).max()


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_guided_as_the_panel_is(panels, name):
    asked = {"num": 2, "solver": "ddim", "steps": 4, "guidance": 2.0, "noise": "keyed"}
    asked |= {"guide": "zoo:mnist-torch/guide", "guidance_interval": (100, 650)}
    wanted = panels["torch"].call(jobs.drawn, "zoo:mnist-torch", "torch", **asked)
    plain = jobs.drawn("zoo:mnist-torch", name, **asked | {"guide": "none", "guidance": None,
                                                           "guidance_interval": None})  # fmt: skip
    found = jobs.drawn("zoo:mnist-torch", name, **asked)
    assert abs(found - wanted).max() < 1e-3 * abs(wanted).max() < abs(found - plain).max()


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_gives_the_same_bits_again(monkeypatch, name):
    """Loaded twice and called three times, on two threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    x = np.random.default_rng(0).normal(size=(16, 1, 28, 28)).astype(np.float32)
    found = []
    for _ in range(2):
        model = diptych.load("zoo:mnist-torch", name, deterministic=True)
        found += [model.predict(x, [500] * 16) for _ in range(3)]
    assert all(np.array_equal(each, found[0]) for each in found)


def test_an_engine_is_recorded(places, tmp_path):
    words = [
        "sample", str(places["onnx"]), "--backend", "openvino", "--num", "2", "--steps", "2",
        "--out", str(tmp_path / "drawn"), "--quiet",
    ]  # fmt: skip
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "drawn/manifest.json").read_text())
    facts = card["environment"]
    assert card["backend"] == facts["backend"] == "openvino" and card["precision"] == "fp32"
    assert facts["threads"] >= 1 and facts["framework_version"][:4].isdigit()
    assert card["weights_sha256"] == find_weights(str(places["torch"])).facts()["weights_sha256"]
    again = CliRunner().invoke(cli, [*words[:3], "onnx", *words[4:], "--resume"])
    assert isinstance(again.exception, UserError) and "backend" in str(again.exception)


def test_what_engines_cannot_do_is_refused_by_name(places, tmp_path):
    own = OwnPlan(lambda: None, 1, 8, 8, 0, "eps")
    for name in ENGINES:
        backend = backends.load(name)
        for refused, said in (
            (lambda n=name: backends.load(n, "cuda"), "runs on the CPU; use --device cpu"),
            (lambda n=name: backends.load(n, precision="tf32"), "precision 'tf32'"),
            (lambda b=backend: b.network(own, {}), "network of one's own"),
            (lambda b=backend: b.learner(own, {}, None, 0), "only predicts"),
            (lambda b=backend: b.feature_network("mnist", {}), "has no feature networks"),
            (lambda n=name: diptych.train("tiny", tmp_path / "run", n), "for training, use torch"),
        ):
            with pytest.raises(UserError, match=said):
                refused()
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="precision 'bf16'"):
        backends.load("onnx", precision="bf16")


def test_bf16_only_where_the_cpu_has_it():
    import openvino

    there = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if there:
        assert backends.load("openvino", precision="bf16").describe()["precision"] == "bf16"
    else:
        with pytest.raises(UserError, match="OpenVINO finds no bf16 in this CPU"):
            backends.load("openvino", precision="bf16")


def test_a_missing_package_is_named(places, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    for refused in (
        lambda: backends.load("openvino"),
        lambda: convert(str(places["torch"]), tmp_path / "model.xml"),
    ):
        with pytest.raises(UserError, match=r"openvino is not installed; pip install"):
            refused()
    assert not list(tmp_path.iterdir())
    assert find_weights(str(places["openvino"])).kind == "ema"  # needs no OpenVINO


def test_the_ladder_judges_an_engine_by_a_panel():
    config = jobs.settings()
    asked = LadderRequest("tiny", config, ("torch", "openvino"))
    assert asked.judged == ("openvino",) and "update" not in asked.climbed
    for names, rungs, said in (
        (("onnx", "openvino"), (), "an engine by a panel"),
        (("torch", "torch"), (), "an engine by a panel"),
        (("torch", "opnvino"), (), "did you mean 'openvino'"),
        (("torch", "onnx"), ("update",), "onnx only predicts; it climbs config"),
    ):
        with pytest.raises(UserError, match=said):
            LadderRequest("tiny", config, names, **({"rungs": rungs} if rungs else {}))
