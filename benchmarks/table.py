"""Results as text: for a terminal, or in Markdown for a file."""

from __future__ import annotations

from typing import Any

TITLES = {
    "training": "One training step",
    "sampling": "Sampling, deterministic DDIM",
}
NAMES = {
    "torch": "PyTorch panel",
    "jittor": "Jittor panel",
    "diffusers": "diffusers UNet2DModel",
    "diffusers-compiled": "diffusers, torch.compile",
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
}
HEAPS = {
    "own": "each contender's own; the PyTorch panel's keeps freed memory",
    "kept": "every contender keeps freed memory",
}
COLUMNS = {
    "training": (
        "contender",
        "s/step",
        "95 %",
        "CPU s/step",
        "images/s",
        "loaded MB",
        "steady MB",
        "peak MB",
    ),
    "sampling": (
        "contender",
        "s/call",
        "95 %",
        "CPU s/call",
        "s/image",
        "loaded MB",
        "steady MB",
        "peak MB",
    ),
}


def render(result: dict[str, Any], markdown: bool = False) -> str:
    """Render one result: the job and the machine, the contenders, the ratios."""
    parts = [_header(result, markdown)]
    parts.append(_table(COLUMNS[result["task"]], _contenders(result), markdown))
    if result["ratios"]:
        columns = ("ratio of times", "median", "95 %", "bar", "verdict")
        parts.append(_table(columns, _ratios(result), markdown))
    return "\n\n".join(parts)


def _header(result: dict[str, Any], markdown: bool) -> str:
    title = f"{TITLES[result['task']]}: {result['size']}"
    rows = _facts(result)
    if markdown:
        return "\n".join([f"## {title}", "", *(f"- {key}: {value}" for key, value in rows)])
    return "\n".join([title, *(f"{key:<11} {value}" for key, value in rows)])


def _facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    where = result["machine"]
    unit = "steps" if result["task"] == "training" else "network calls"
    rows = [
        ("network", f"{result['network']}; batch {result['batch']}"),
        ("parameters", _parameters(result)),
        ("machine", f"{where['cpu']}, {where['cores']} cores, {where['platform']}"),
        ("device", f"{result['device']}: {_device(result)}"),
        ("versions", _versions(result)),
        ("threads", f"{result['threads']} for every contender, OMP_WAIT_POLICY=passive"),
        ("heap", HEAPS[result.get("heap", "own")]),
        (
            "load",
            f"{result['load_before']:.2f} before, {result['load_after']:.2f} after (1 minute)",
        ),
        (
            "rounds",
            f"{result['rounds']} of {result['steps']} {unit}, order reversed every round, "
            f"after {result['warmup_rounds']} dropped",
        ),
    ]
    return rows + _agreement(result)


def _parameters(result: dict[str, Any]) -> str:
    counts = {name: each["parameters"] for name, each in result["contenders"].items()}
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values())):,} in each contender"
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _device(result: dict[str, Any]) -> str:
    names = [each["facts"]["device_name"] for each in result["contenders"].values()]
    return ", ".join(dict.fromkeys(names))


def _agreement(result: dict[str, Any]) -> list[tuple[str, str]]:
    if not result["agreement"]:
        return []
    what = "predictions" if result["task"] == "training" else "images"
    far = ", ".join(f"{name} {value:.1e}" for name, value in result["agreement"].items())
    first = next(iter(result["contenders"]))
    return [("agreement", f"largest difference of {what} from {first}'s, relative: {far}")]


def _versions(result: dict[str, Any]) -> str:
    where = result["machine"]
    found = {"diptych": where["diptych"], "Python": where["python"], "NumPy": where["numpy"]}
    for name, each in result["contenders"].items():
        found[name] = each["facts"]["framework_version"]
        if "torch_version" in each["facts"]:
            found["torch"] = each["facts"]["torch_version"]
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _contenders(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for name, each in result["contenders"].items():
        step, memory = each["seconds_per_step"], each["memory_mb"]
        image = each["seconds_per_image"]
        last = f"{1 / image:.4g}" if result["task"] == "training" else f"{image:.4g}"
        megabytes = [f"{memory[key]:.0f}" for key in ("loaded", "steady", "peak")]
        cpu = f"{each['cpu_seconds_per_step']:.4g}"
        rows.append((NAMES[name], f"{step['median']:.4g}", _interval(step), cpu, last, *megabytes))
    return rows


def _ratios(result: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            f"{NAMES[each['a']]} / {NAMES[each['b']]}",
            f"{each['median']:.3f}",
            _interval(each),
            each.get("bar", ""),
            each.get("verdict", ""),
        )
        for each in result["ratios"]
    ]


def _interval(found: dict[str, Any]) -> str:
    if found["low"] is None:
        return "-"
    return f"{found['low']:.4g} to {found['high']:.4g}"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]], markdown: bool) -> str:
    if markdown:
        lines = [columns, tuple("---" for _ in columns), *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [columns, *rows]
    )
