"""Networks as ONNX and OpenVINO files: written for other programs, and read as weights.

    model.onnx              one file; its metadata holds what is listed below
    model.xml, model.bin    OpenVINO's pair, float32; the first's `rt_info` holds the same

    diptych.config, diptych.ema    as in the safetensors files of Diptych
    diptych.weights_sha256         of the weights, as in manifests
    diptych.graph_sha256           of the graph with its constants

Only files that Diptych wrote are read, and only if the graph is still the one that was written: of
a changed graph, the weights alone would be another network. Nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import numpy as np

from diptych.config.load import Config, validate
from diptych.errors import UserError
from diptych.files import atomic_path, machine_faults, open_file, parse_json
from diptych.machine.packages import require
from diptych.network.onnx_graph import OPSET, file_model
from diptych.network.parameters import parameter_table
from diptych.network.plan import make_plan
from diptych.runs.checkpoint import weights_sha256
from diptych.types import Weights

ONNX, OPENVINO = ".onnx", ".xml"
CONFIG, WEIGHTS, GRAPH = "diptych.config", "diptych.weights_sha256", "diptych.graph_sha256"
AGAIN = "convert the weights again, or check it with: diptych align port REFERENCE.py"


def is_graph(path: Path) -> bool:
    """True if a file's name is that of an ONNX or OpenVINO model."""
    return path.suffix.lower() in (ONNX, OPENVINO)


def model_of(config: Config, weights: Weights) -> Any:
    """The graph to be written, as an onnx.ModelProto; inputs: see `network.onnx_graph`."""
    return file_model(make_plan(config), weights, config.diffusion.timesteps)


def write_onnx(out: Path, config: Config, weights: Weights, said: Mapping[str, str]) -> str:
    """Write one .onnx file; return its form for people. `said`: the metadata but for hashes."""
    model = model_of(config, weights)
    about = {**said, WEIGHTS: weights_sha256(weights), GRAPH: _onnx_hash(model)}
    require("onnx", "onnx").helper.set_model_props(model, about)
    with atomic_path(out) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    return f"onnx, opset {OPSET}"


def write_openvino(out: Path, config: Config, weights: Weights, said: Mapping[str, str]) -> str:
    """Write out.xml and out.bin, float32; return their form for people.

    The .xml comes last: without it nothing reads the .bin.
    """
    openvino = require("openvino", "openvino")
    made = model_of(config, weights)
    model = openvino.Core().read_model(made.SerializeToString())
    own = {each.name for each in (*made.graph.node, *made.graph.initializer, *made.graph.input)}
    for place, op in enumerate(model.get_ordered_ops()):
        if op.get_friendly_name() not in own:  # numbered by OpenVINO, through all its models
            op.set_friendly_name(f"{op.get_type_name()}_{place}")
    about = {**said, WEIGHTS: weights_sha256(weights)}
    with machine_faults(f"writing {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            file = Path(folder) / "model.xml"
            openvino.save_model(model, file, compress_to_fp16=False)
            about[GRAPH] = _openvino_hash(file.read_bytes(), _bin(file))
            for name, value in about.items():
                model.set_rt_info(value, name.split("."))
            openvino.save_model(model, file, compress_to_fp16=False)
            if _openvino_hash(file.read_bytes(), _bin(file)) != about[GRAPH]:
                raise RuntimeError("OpenVINO wrote one graph in two ways")
            for suffix in (".bin", ".xml"):
                with atomic_path(out.with_suffix(suffix)) as temporary:
                    file.with_suffix(suffix).replace(temporary)
    return f"openvino {openvino.__version__.partition('-')[0]}, opset {OPSET} of ONNX"


def read_graph(path: Path) -> tuple[str, Weights, dict[str, str]]:
    """(form, weights by official name, metadata) of a file that Diptych wrote.

    Raises:
        UserError: not a graph, not written by Diptych, or changed afterwards.
    """
    kind = "onnx" if path.suffix.lower() == ONNX else "openvino"
    about, arrays, found = (_read_onnx if kind == "onnx" else _read_openvino)(path)
    if any(name not in about for name in (CONFIG, WEIGHTS, GRAPH)):
        raise UserError(
            f"{path}: was not written by diptych convert, so that its weights alone do not say "
            f"what it computes; check it with: diptych align port REFERENCE.py {path}"
        )
    if about[GRAPH] != found:
        raise UserError(f"{path}: its graph was changed after Diptych wrote it; {AGAIN} {path}")
    try:
        tree = parse_json(about[CONFIG])
    except ValueError as error:
        raise UserError(f"{path}: its config is damaged ({error}); {AGAIN} {path}") from error
    config = validate(tree if isinstance(tree, dict) else {}, str(path))
    names = parameter_table(make_plan(config))
    missing = next((name for name in names if name not in arrays), None)
    if missing is not None:
        raise UserError(f"{path}: holds no weight '{missing}'; {AGAIN} {path}")
    weights = {name: np.array(arrays[name], np.float32, order="C") for name in names}
    if weights_sha256(weights) != about[WEIGHTS]:
        raise UserError(f"{path}: its weights are not those of its metadata; {AGAIN} {path}")
    return kind, weights, about


Read = tuple[dict[str, str], dict[str, Any], str]


def _read_onnx(path: Path) -> Read:
    onnx = require("onnx", "onnx")
    with open_file(path, "an ONNX file") as file:
        content = file.read()
    if not content:
        raise UserError(f"{path}: the file is empty")
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's own kinds of error
        raise UserError(f"{path}: is not an ONNX file, or damaged ({error})") from error
    about = {p.key: p.value for p in model.metadata_props}
    arrays = {}
    for each in model.graph.initializer:
        if each.data_location == onnx.TensorProto.EXTERNAL:
            raise UserError(f"{path}: keeps its weights in other files; {AGAIN} {path}")
        arrays[each.name] = onnx.numpy_helper.to_array(each)
    return about, arrays, _onnx_hash(model)


def _onnx_hash(model: Any) -> str:
    said = model.graph.SerializeToString(deterministic=True)
    opset = ",".join(f"{o.domain}:{o.version}" for o in model.opset_import)
    return hashlib.sha256(said + opset.encode()).hexdigest()


def _bin(path: Path) -> bytes:
    with open_file(path.with_suffix(".bin"), "OpenVINO's weights") as file:
        return file.read()


def _openvino_hash(text: bytes, binary: bytes) -> str:
    """Of the layers and edges as written, and of the weights; not of notes such as versions."""
    found = re.search(rb"<layers>.*</edges>", text, re.S)
    digest = hashlib.sha256(found[0] if found else b"")
    digest.update(hashlib.sha256(binary).digest())
    return digest.hexdigest()


def _read_openvino(path: Path) -> Read:
    with open_file(path, "an OpenVINO file") as file:
        text = file.read()
    try:
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise ValueError("it declares entities")
        tree = ElementTree.fromstring(text)
        notes = tree.find("rt_info/diptych")
        about = {} if notes is None else {f"diptych.{n.tag}": n.get("value", "") for n in notes}
        binary = _bin(path)
        arrays = {}
        for layer in tree.iterfind("layers/layer[@type='Const']"):
            data = layer.find("data")
            if data is None or data.get("element_type") != "f32":
                continue
            shape = [int(n) for n in (data.get("shape") or "").split(",") if n]
            start, size = int(data.get("offset", 0)), int(data.get("size", 0))
            values = np.frombuffer(binary[start : start + size], "<f4").reshape(shape)
            arrays[layer.get("name", "")] = values
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path}: is not an OpenVINO file, or damaged ({error})") from error
    return about, arrays, _openvino_hash(text, binary)
