"""Real photographs and a drawing, and known data set layouts filled with crops of them.

Two photographs come with scikit-learn (a Chinese temple and a flower, by their authors under
CC BY), one portrait and one drawing with matplotlib. Nothing is downloaded. A CIFAR-10 made here is
not the published one, so it has its own checksums in MD5SUMS, as a user's would.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickle
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PLACES = {
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "matplotlib": (
        "mpl-data/sample_data/grace_hopper.jpg",
        "mpl-data/sample_data/Minduka_Present_Blue_Pack.png",
    ),
}


@cache
def photos() -> tuple[Image.Image, ...]:
    """All four pictures, RGB, in a fixed order."""
    found = []
    for package, names in PLACES.items():
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None, f"{package} is not installed"
        for name in names:
            with Image.open(Path(spec.origin).parent / name) as picture:
                found.append(picture.convert("RGB"))
    return tuple(found)


def crops(count: int, width: int, height: int, seed: int = 0) -> list[Image.Image]:
    """Crops of the pictures in turn, at various scales, each `width` x `height`."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        picture = photos()[k % len(photos())]
        largest = min(picture.width / width, picture.height / height)
        scale = rng.uniform(min(1.0, largest), largest)
        w, h = int(width * scale), int(height * scale)
        left = int(rng.integers(0, picture.width - w + 1))
        top = int(rng.integers(0, picture.height - h + 1))
        box = (left, top, left + w, top + h)
        made.append(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))
    return made


def encoded(picture: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """Encode a picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(pictures: list[Image.Image]) -> np.ndarray:
    """The pictures as an array (N, 3, H, W), uint8."""
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])


# CIFAR-10


class Python2(pickle._Pickler):
    """Pickles bytes as Python 2 strings, the form of the published batches."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, held: bytes) -> None:
        self.write(b"T" + len(held).to_bytes(4, "little") + held)
        self.memoize(held)

    dispatch[bytes] = save_bytes


def cifar_batches(each: int = 8, binary: bool = False) -> dict[str, bytes]:
    """Six batches of `each` images of 32x32: name -> bytes; the label of image k is k % 10."""
    images = pixels(crops(6 * each, 32, 32)).reshape(6 * each, -1)
    labels = np.arange(6 * each) % 10
    names = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    held = {}
    for k, name in enumerate(names):
        rows, own = images[k * each : (k + 1) * each], labels[k * each : (k + 1) * each]
        if binary:
            records = np.concatenate([own.astype(np.uint8)[:, None], rows], axis=1)
            held[f"{name}.bin"] = records.tobytes()
        else:
            batch = {b"batch_label": name.encode(), b"labels": own.tolist(), b"data": rows}
            buffer = io.BytesIO()
            Python2(buffer, protocol=2).dump(batch)
            held[name] = buffer.getvalue()
    return held


def write_sums(folder: Path) -> None:
    """Write MD5SUMS of a folder's files, in the format of md5sum."""
    lines = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}"
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != "MD5SUMS"
    ]
    (folder / "MD5SUMS").write_text("\n".join(lines) + "\n")


def put_cifar10(
    root: Path, each: int = 8, binary: bool = False, packed: bool = False, sums: bool = True
) -> Path:
    """Write a small CIFAR-10 below `root` (the --data folder); return the folder of its files."""
    kind = "binary" if binary else "python"
    inner = f"cifar-10-batches-{'bin' if binary else 'py'}"
    batches = cifar_batches(each, binary)
    folder = root / "cifar10" / ("" if packed else inner)
    folder.mkdir(parents=True, exist_ok=True)
    if packed:
        with tarfile.open(folder / f"cifar-10-{kind}.tar.gz", "w:gz", compresslevel=1) as tar:
            for name, data in batches.items():
                member = tarfile.TarInfo(f"{inner}/{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    else:
        for name, data in batches.items():
            (folder / name).write_bytes(data)
    if sums:
        write_sums(folder)
    return folder


# CelebA, LSUN, FFHQ, folders


def put_celeba(root: Path, count: int = 20, zipped: bool = False) -> Path:
    """Write `count` pictures of 178x218, four fifths for training; return their folder."""
    folder = root / "celeba"
    pictures = folder / "img_align_celeba"
    pictures.mkdir(parents=True, exist_ok=True)
    lines = []
    for k, picture in enumerate(crops(count, 178, 218, seed=1), 1):
        (pictures / f"{k:06d}.jpg").write_bytes(encoded(picture, quality=95))
        lines.append(f"{k:06d}.jpg {0 if k % 5 else 2}")
    (folder / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    if zipped:
        import shutil

        shutil.make_archive(str(pictures), "zip", folder, "img_align_celeba")
        shutil.rmtree(pictures)
    return folder


def put_lsun(root: Path, category: str = "church_outdoor", count: int = 16) -> Path:
    """Write a training database of WebP pictures of various sizes, like LSUN; return its path."""
    import lmdb

    rng = np.random.default_rng(2)
    path = root / "lsun" / f"{category}_train_lmdb"
    path.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(path), map_size=1 << 26) as database, database.begin(write=True) as records:
        for k in range(count):
            width, height = (int(side) for side in rng.integers(64, 160, 2))
            picture = crops(1 + k % 4, width, height, seed=k)[-1]
            key = hashlib.sha1(str(k).encode()).hexdigest().encode()
            records.put(key, encoded(picture, "WEBP", quality=90))
    return path


def put_ffhq(root: Path, count: int = 20, size: int = 32) -> Path:
    """Write a database like the official code: `length` and `SIZE-00000` ...; return its path."""
    import lmdb

    path = root / "FFHQ"
    path.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(path), map_size=1 << 26) as database, database.begin(write=True) as records:
        records.put(b"length", str(count).encode())
        for k, picture in enumerate(crops(count, size, size, seed=3)):
            records.put(f"{size}-{k:05d}".encode(), encoded(picture, "PNG"))
    return path


def put_folder(root: Path, count: int = 12) -> Path:
    """Write pictures of various sizes and formats to two sub-folders; return the folder."""
    forms = [("JPEG", ".jpg"), ("PNG", ".PNG"), ("WEBP", ".webp"), ("JPEG", ".jpeg")]
    for k in range(count):
        picture = crops(1 + k % 4, 60 + 7 * k, 50 + 3 * k, seed=k)[-1]
        form, suffix = forms[k % 4]
        path = root / "pictures" / ("left" if k % 2 else "right") / f"{k:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture, form))
    return root / "pictures"
