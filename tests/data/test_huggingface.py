"""Hugging Face data sets, with their own library."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import photos
from diptych.data import load_dataset
from diptych.data.readers import huggingface
from diptych.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")  # their library's are not ours


def test_parquet_and_image_folder_give_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets", reason="diptych[hf] is not installed")
    pictures, classes = photos.crops(10, 40, 30), [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    encoded = [{"bytes": photos.encoded(each, "PNG"), "path": None} for each in pictures]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(3)})
    table = datasets.Dataset.from_dict({"image": encoded, "label": classes}, features=features)
    (tmp_path / "pq/data").mkdir(parents=True)
    for split, rows in (("train", range(8)), ("test", range(8, 10))):
        table.select(rows).to_parquet(str(tmp_path / f"pq/data/{split}-00000-of-00001.parquet"))
    for k, picture in enumerate(pictures[:8]):
        path = tmp_path / "folder/train" / "abc"[classes[k]] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    packed = load_dataset(f"hf:{tmp_path}/pq", image_size=24)
    folder = load_dataset(f"hf:{tmp_path}/folder", image_size=24)
    files = load_dataset(f"folder:{tmp_path}/folder/train", image_size=24)
    assert packed.labels is not None and packed.labels.tolist() == classes[:8]
    for other in (folder, files):
        assert other.labels is not None and other.labels.tolist() == classes[:8]
        assert np.array_equal(packed.images[:], other.images[:])
    items = packed.images.items
    assert [items.size(k) for k in range(8)] == [len(each["bytes"]) for each in encoded[:8]]
    named = folder.images.items  # the table holds paths
    assert [named.size(k) for k in range(8)] == [len(named.read(k)) for k in range(8)]
    assert len(load_dataset(f"hf:{tmp_path}/pq", "test", image_size=24).images) == 2
    with pytest.raises(UserError, match="cannot be read"):
        load_dataset(f"hf:{tmp_path}/nothing", image_size=24)
    unlabelled = datasets.Dataset.from_dict(
        {"image": encoded, "label": [*classes[:9], -1]}, features=features
    )
    (tmp_path / "some").mkdir()
    unlabelled.to_parquet(str(tmp_path / "some/train.parquet"))
    assert load_dataset(f"hf:{tmp_path}/some", image_size=24).labels is None


@pytest.mark.parametrize(
    ("files", "train", "test"),
    [
        (["train/0000.parquet", "test/0000.parquet"], [0], [1]),
        (["data/train-00000-of-1.parquet", "data/test-00000-of-1.parquet"], [0], [1]),
        (["mnist/latest/0000.parquet", "mnist/validation.parquet"], [0], []),
        (["part-0.parquet", "part-1.parquet"], [0, 1], []),
    ],
)
def test_the_split_of_a_parquet_file(
    tmp_path: Path, files: list[str], train: list[int], test: list[int]
) -> None:
    """By words of its path below the folder, whose own name does not count."""
    root = tmp_path / "test"
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    asked = SimpleNamespace(load_dataset=lambda kind, data_files, split: data_files[split])
    for split, wanted in (("train", train), ("test", test)):
        if wanted:
            found = huggingface._load(asked, root, "x", split)
            assert found == sorted(str(root / files[k]) for k in wanted)
        else:
            with pytest.raises(ValueError, match=f"no parquet file has '{split}'"):
                huggingface._load(asked, root, "x", split)
