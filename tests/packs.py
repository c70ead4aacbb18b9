"""Small packs of smooth random pictures, for tests of everything above the data floor."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import Pack, _digest, _sha256_of_files, write_pack


def write_tree(root: Path, train: int = 20, test: int = 6, side: int = 72, seed: int = 0) -> Path:
    """An iHarmony4 tree of the sub-set Sample: two composites of each photo, brightened inside a rectangle."""
    random = np.random.default_rng(seed)
    folder = root / "Sample"
    for name in ("composite_images", "masks", "real_images"):
        (folder / name).mkdir(parents=True)
    number = 0
    for split, count in (("train", train), ("test", test)):
        names = []
        for _ in range(count):
            photo, version = f"s{number // 2}", number % 2
            number += 1
            coarse = random.integers(40, 200, (4, 4, 3)).astype(np.uint8)
            real = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
            if version:
                real = np.asarray(Image.open(folder / "real_images" / f"{photo}.png"))
            mask = np.zeros((side, side), np.uint8)
            top, left = random.integers(0, side // 2, 2)
            mask[top : top + side // 3, left : left + side // 3] = 255
            composite = np.where(mask[..., None] > 0, np.clip(real * 0.6 + 10, 0, 255), real).astype(np.uint8)
            Image.fromarray(real).save(folder / "real_images" / f"{photo}.png")
            Image.fromarray(mask).save(folder / "masks" / f"{photo}_{version}.png")
            Image.fromarray(composite).save(folder / "composite_images" / f"{photo}_{version}_1.png")
            names.append(f"{photo}_{version}_1.png")
        number += number % 2  # a photo belongs to one split
        (folder / f"Sample_{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def write_small_pack(folder: Path, train: int = 20, test: int = 6) -> Pack:
    """A 64-px pack of ``write_tree``."""
    return write_pack(index(Source(write_tree(folder / "tree", train, test))), folder / "pack", 64, 1, lambda _: None)


def write_repeated_pack(pack: Pack, folder: Path, count: int) -> Path:
    """A pack of ``count`` test rows: those of ``pack`` again and again, each time under other names."""
    folder.mkdir()
    rows = np.resize(np.arange(len(pack)), count)
    manifest = json.loads((pack.root / "pack.json").read_text())
    for name in manifest["sha256"]:
        one = (pack.root / name).stat().st_size // len(pack)
        pixels = np.memmap(pack.root / name, np.uint8, mode="r", shape=(len(pack), one))
        with (folder / name).open("wb") as file:
            for row in rows:
                file.write(pixels[row].tobytes())
    for key in ("datasets", "groups", "area_fractions"):
        manifest[key] = [manifest[key][row] for row in rows]
    names = [f"{manifest['names'][row]}-{number}" for number, row in enumerate(rows)]
    facts = {**manifest, "count": count, "names": names, "splits": ["test"] * count}
    facts |= {"sha256": _sha256_of_files(folder, list(manifest["sha256"]))}
    (folder / "pack.json").write_text(json.dumps(facts | {"digest": _digest(facts)}))
    return folder
