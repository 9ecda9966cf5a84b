"""Reference FIDs by the tools themselves, each from PNGs to the number -> fid.json.

    pip install torch==2.13.0 torch-fidelity==0.4.0 pytorch-fid==0.3.0 clean-fid==0.1.35
    PYTHONPATH=src:tests/support python tests/golden/make_fid.py        (in a separate environment)

pytorch-fid and torch-fidelity run complete, with the random weights of `inception_file.py` instead
of the published file. clean-fid's network is a compiled file that is not available everywhere, so
its own reading, resizing and distance run around pytorch-fid's network, with the same inputs.
"""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from make_inception import with_torchvision

from inception_file import fid_folders, random_weights

TOOLS = ("pytorch-fid", "torch-fidelity", "clean-fid", "scipy", "numpy", "torch", "pillow")


def pytorch_fid(path, a, b):
    """FID by pytorch-fid."""
    from pytorch_fid import fid_score, inception

    inception.load_state_dict_from_url = lambda *_, **__: torch.load(path, weights_only=True)
    return fid_score.calculate_fid_given_paths([str(a), str(b)], 16, "cpu", 2048, 0)


def torch_fidelity(path, a, b):
    """FID by torch-fidelity."""
    from torch_fidelity import calculate_metrics

    found = calculate_metrics(
        input1=str(a), input2=str(b), fid=True, cuda=False, batch_size=16, cache=False,
        feature_extractor_weights_path=str(path), verbose=False,
    )  # fmt: skip
    return found["frechet_inception_distance"]


def clean_fid(path, a, b):
    """FID by clean-fid around pytorch-fid's network."""
    from cleanfid import fid
    from pytorch_fid import inception

    inception.load_state_dict_from_url = lambda *_, **__: torch.load(path, weights_only=True)
    network = inception.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    statistics = []
    for folder in (a, b):
        found = fid.get_folder_features(
            str(folder), lambda x: network((x - 128) / 128)[0].flatten(1), num_workers=0,
            batch_size=16, device=torch.device("cpu"), mode="clean", verbose=False,
        )  # fmt: skip
        statistics += [np.mean(found, axis=0), np.cov(found, rowvar=False)]
    return fid.frechet_distance(*statistics)


def main():
    with_torchvision()
    state = {name: torch.tensor(array) for name, array in random_weights(True).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.pth"
        torch.save(state, path)
        a, b = fid_folders(Path(folder))
        tools = {"pytorch-fid": pytorch_fid, "torch-fidelity": torch_fidelity,
                 "clean-fid": clean_fid}  # fmt: skip
        fids = {name: float(run(path, a, b)) for name, run in tools.items()}
    versions = {name: importlib.metadata.version(name) for name in TOOLS}
    content = {"fid": fids, "versions": versions}
    print(json.dumps(content, indent=2))
    Path(__file__).with_name("fid.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
