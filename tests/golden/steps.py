"""Four training steps of the preset `tiny` with one backend: losses and the checkpoint's hash.

    python tests/golden/steps.py torch|jittor     prints one JSON object

A refactor must not change any of it; tests/project/test_golden.py compares with steps.json. The
numbers are bit-identical only on the same processor, framework and number of threads, which `where`
names. Regenerate steps.json only with a change of numbers announced in CHANGELOG.md under
"Numerics".
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

STEPS, THREADS = 4, 2
SETTINGS = ("model.dropout=0.1", "train.checkpoint_every=4", "train.grid_every=0")


def processor() -> str:
    """The processor's name and a hash of its instruction sets, as reported by the kernel."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    pairs = (line.partition(":") for line in reversed(lines))
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    flags = hashlib.sha256(" ".join(sorted(facts.get("flags", "").split())).encode())
    return f"{facts.get('model name', '')} {flags.hexdigest()[:8]}"


def where(backend: str) -> str:
    """Everything that determines the last bits: processor, framework, threads."""
    return f"{processor()}; {backend} {version(backend)}; {THREADS} threads"


def steps(backend: str) -> dict[str, Any]:
    """Train in a separate process, as a user would; return full losses and weight hashes."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "diptych", "train", "tiny", "--backend", backend]
        command += ["--out", str(run), "--steps", str(STEPS)]
        for setting in SETTINGS:
            command += ["--set", setting]
        environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        files = sorted(run.rglob("*.safetensors"))
        return {
            "where": where(backend),
            "losses": [row["loss"] for row in rows if "loss" in row],
            "sha256": {
                str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in files
            },
        }


if __name__ == "__main__":
    print(json.dumps(steps(sys.argv[1]), indent=1))
