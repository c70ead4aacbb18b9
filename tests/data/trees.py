"""Small data roots in iHarmony4 layout, and a decompression bomb."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 24, 16


def make_tree(root: Path, named: dict[str, dict[str, list[str]]], own_lists: bool = True, ihd: bool = False) -> Path:
    """``named`` is {sub-set: {split: [composite file names]}}; all files of each name are written."""
    rng = np.random.default_rng(0)
    for subset, splits in named.items():
        folder = root / subset
        for kind in ("composite_images", "masks", "real_images"):
            (folder / kind).mkdir(parents=True)
        for split, names in splits.items():
            for name in names:
                write_triplet(folder, name, rng)
            if own_lists:
                (folder / f"{subset}_{split}.txt").write_text("".join(f"{name}\n" for name in names))
    for split in ("train", "test") if ihd else ():
        lines = [f"{subset}/composite_images/{name}\n" for subset in named for name in named[subset].get(split, [])]
        (root / f"IHD_{split}.txt").write_text("".join(lines))
    return root


def write_triplet(folder: Path, name: str, rng: np.random.Generator) -> None:
    stem = name.rsplit(".", 1)[0]
    real, mask, _ = stem.rsplit("_", 2)
    real_path, mask_path = folder / "real_images" / f"{real}.jpg", folder / "masks" / f"{real}_{mask}.png"
    if not real_path.exists():
        noise(rng).save(real_path, quality=95)
    if not mask_path.exists():
        values = np.zeros((HEIGHT, WIDTH), np.uint8)
        values[4:12, 4 : 6 + rng.integers(0, 12)] = 255
        values[3, 4:8] = 90  # a grey edge
        Image.fromarray(values).save(mask_path)
    noise(rng).save(folder / "composite_images" / name)


def noise(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def many(count: int, first: int = 0) -> list[str]:
    """Composite names, two of each real photo."""
    return [f"c{1 + i // 2}_9001_{i % 2}.jpg" for i in range(first, first + count)]


def bomb(width: int, height: int) -> bytes:
    """A small valid PNG that claims width x height grey pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(48_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
