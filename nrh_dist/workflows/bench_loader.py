"""The feed against its peers on one core: a loader that decodes and resizes, and webdataset.

All sides hand over batches of 32 composites, reals and masks of 256 px, in host memory. What they do for it:

    feed            the rows of a shuffled order, gathered from the pack's memory map into new uint8 tensors
    feed, float     the same, cast and normalised on the CPU, which the feed otherwise leaves to the device
    decoding        three cv2.imread, BGR -> RGB, cv2.resize (linear), stacked; iSSAM's dataset without augmentation
    decoding, float the same, each photo through ToTensor and Normalize, the masks to 0..1
    webdataset      raw bytes from uncompressed tars of the same pack, made arrays without a copy, then batched; read in
                    the order of the tars, which spares it the shuffle
    webdataset, float   the same, cast and normalised as by the feed
    floor           np.copyto of blocks of consecutive rows into buffers that are there already

The pack and the tars hold the samples again and again, so that they are larger than the CPU's caches. All files are in
memory, or were read before.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

from nrh_dist.data.feed import Feed
from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import Pack, open_pack, write_pack
from nrh_dist.data.samples import Sample
from nrh_dist.data.synthetic import write_sample
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.workflows import loaders
from nrh_dist.workflows.measure import (
    Figure,
    cpu_seconds,
    figure,
    in_turns,
    memory_folder,
    new_process,
    one_thread,
    ratios,
)

BATCH = 32
DECODING_TARGET, WEBDATASET_TARGET = 200.0, 10.0
FLOOR = "np.copyto of as many bytes"
IMAGES = ("composites", "reals", "masks")


@dataclass(frozen=True)
class Settings:
    """``rows`` of the pack, of ``size`` pixels; a side that makes floats takes a quarter of them each round."""

    size: int = 256
    rows: int = 1024
    rounds: int = 15
    shards: int = 4


def bench(root: Path | None, say: Say, settings: Settings | None = None) -> list[Figure]:
    """The figures for the samples of ``root`` (iHarmony4 layout), or of sample data, which have no targets.

    ``UserError``: webdataset is missing, ``root`` cannot be used.
    """
    settings = settings or Settings()
    loaders.require_webdataset()
    needed = 3 * settings.rows * 7 * settings.size**2  # pack, tars and as much again
    with TemporaryDirectory(prefix="nrh-bench-", dir=memory_folder(needed)) as temporary, one_thread():
        folder = Path(temporary)
        if root is None:
            say("no --data: sample data of 160x128 pixels, where there is little to decode: no targets")
            write_sample(folder / "sample", say=say)
        samples = index(Source(root or folder / "sample/iharmony4"))
        if not all(isinstance(sample.mask, Path) and sample.composite != sample.real for sample in samples):
            raise UserError(f"{root} is not of iHarmony4 layout, with composites and masks: give another --data")
        say(f"loader: {len(samples)} samples, {settings.rounds} rounds of 7 sides in turns, on one core")
        small = write_pack(samples, folder / "small", settings.size, 1, lambda _: None)
        with new_process() as child:
            costs = child.submit(costs_of_all, samples, small.root, folder, settings).result()
    return _figures(costs, has_targets=root is not None)


def _figures(costs: dict[str, list[float]], has_targets: bool) -> list[Figure]:
    targets = (DECODING_TARGET, WEBDATASET_TARGET) if has_targets else (None, None)
    unit = "CPU seconds a sample on one core"
    to_device = "uint8 for the device, which casts and normalises"
    rows = [
        ("feed against decoding", "feed", "decoding, float", targets[0], f"{to_device}; the peer: float32, normalised"),
        ("feed against webdataset", "feed", "webdataset", targets[1], "both: uint8"),
        ("feed against decoding, uint8", "feed", "decoding", None, "both: uint8"),
        ("feed against decoding, float", "feed, float", "decoding, float", None, "both: float32, cast on the CPU"),
        ("feed against webdataset, float", "feed, float", "webdataset, float", None, "both: float32, cast on the CPU"),
    ]
    found = []
    for name, ours, peer, target, note in rows:
        told = {"decoding": "a loader that decodes and resizes", "webdataset": "webdataset"}[peer.split(",")[0]]
        one = figure(name, ratios(costs[peer], costs[ours]), target, told, unit, note)
        found.append(one.above(costs[ours], costs["floor"], FLOOR))
    return found


def costs_of_all(samples: list[Sample], small: Path, folder: Path, settings: Settings) -> dict[str, list[float]]:
    """CPU seconds a sample of each side, by round, in this process."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pack = enlarged(open_pack(small), settings.rows, folder)
    tars = loaders.write_tars(pack, folder, settings.shards)
    feed = Feed(pack, np.arange(len(pack)), "cpu")
    buffers = [np.empty_like(getattr(pack, name)[:BATCH]) for name in IMAGES]
    random = np.random.default_rng(0)
    some = settings.rows // 4

    def batches(count: int) -> list[np.ndarray]:
        order = random.permutation(len(pack))[:count]
        return [order[start : start + BATCH] for start in range(0, count, BATCH)]

    def of_feed(number: int) -> None:
        for rows in batches(settings.rows):
            feed.taken(rows)

    def of_feed_float(number: int) -> None:
        for rows in batches(some):
            feed.gather(rows)

    def to_decode(number: int) -> list[Sample]:
        return [samples[(number * BATCH + place) % len(samples)] for place in range(BATCH)]

    def of_webdataset(number: int) -> None:
        for _ in loaders.webdataset_batches(tars, settings.size, BATCH):
            pass

    def of_webdataset_float(number: int) -> None:
        for batch in loaders.webdataset_batches(tars[:: settings.shards], settings.size, BATCH):
            loaders.normalised(batch)

    def copies(number: int) -> None:
        for start in range(0, settings.rows, BATCH):
            for name, buffer in zip(IMAGES, buffers, strict=True):
                part = getattr(pack, name)[start : start + BATCH]
                np.copyto(buffer[: len(part)], part)

    work: dict[str, tuple[Callable[[int], object], int]] = {
        "feed": (of_feed, settings.rows),
        "decoding, float": (lambda number: loaders.decode_float_batch(to_decode(number), settings.size), BATCH),
        "webdataset": (of_webdataset, settings.rows),
        "floor": (copies, settings.rows),
        "decoding": (lambda number: loaders.decode_batch(to_decode(number), settings.size), BATCH),
        "feed, float": (of_feed_float, some),
        "webdataset, float": (of_webdataset_float, len(np.array_split(np.arange(settings.rows), settings.shards)[0])),
    }
    for function, _ in work.values():
        function(settings.rounds)  # what is done once: imports, pages
    sides = {
        name: lambda number, function=function, count=count: cpu_seconds(function, number) / count
        for name, (function, count) in work.items()
    }
    return in_turns(sides, settings.rounds)


def enlarged(pack: Pack, count: int, folder: Path) -> Pack:
    """A pack of ``count`` rows, those of ``pack`` again and again, its images mapped from new files in ``folder``."""
    rows = np.arange(count) % len(pack)
    composites, reals, masks = (_repeated(getattr(pack, name), rows, folder / f"{name}.u8") for name in IMAGES)
    names = [f"{pack.names[row]}-{number}" for number, row in enumerate(rows)]
    fractions = pack.area_fractions[rows]
    return replace(pack, names=names, area_fractions=fractions, composites=composites, reals=reals, masks=masks)


def _repeated(source: np.ndarray, rows: np.ndarray, path: Path) -> np.memmap:
    shape = (len(rows), *source.shape[1:])
    written = np.memmap(path, np.uint8, mode="w+", shape=shape)
    for start in range(0, len(rows), BATCH):
        written[start : start + BATCH] = source[rows[start : start + BATCH]]
    written.flush()
    return np.memmap(path, np.uint8, mode="r", shape=shape)
