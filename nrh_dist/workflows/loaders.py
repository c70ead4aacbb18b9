"""The peers of the feed: a loader that decodes and resizes, as iSSAM has it, and webdataset from tars of raw arrays."""

import io
import tarfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from nrh_dist.data.pack import Pack
from nrh_dist.data.samples import Sample
from nrh_dist.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1], iSSAM's normalisation
IMAGENET_STD = (0.229, 0.224, 0.225)
KEYS = ("composite", "real", "mask")


def require_webdataset() -> None:
    """``UserError`` without webdataset, which only the ``test`` extra brings."""
    if find_spec("webdataset") is None:
        raise UserError("the bench compares with webdataset, which is not installed: pip install 'nrh_dist[test]'")


def decoded(sample: Sample, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Composite, real and mask of one sample by OpenCV, BGR turned to RGB, resized with OpenCV's default (linear)."""
    assert isinstance(sample.mask, Path), "samples of iHarmony4 layout have mask files"
    composite, real = (cv2.cvtColor(_read(path), cv2.COLOR_BGR2RGB) for path in (sample.composite, sample.real))
    return tuple(cv2.resize(one, (size, size)) for one in (composite, real, _read(sample.mask)[:, :, 0]))  # type: ignore[return-value]


def decode_batch(samples: Sequence[Sample], size: int) -> list[Tensor]:
    """A batch of uint8: composites and reals N x size x size x 3, masks N x size x size."""
    return [torch.from_numpy(np.stack(arrays)) for arrays in zip(*(decoded(one, size) for one in samples), strict=True)]


def decode_float_batch(samples: Sequence[Sample], size: int) -> list[Tensor]:
    """A batch of float32, N3SS normalised and masks N1SS in 0..1, sample by sample as iSSAM's dataset makes it."""
    parts: list[list[Tensor]] = [[], [], []]
    for sample in samples:
        composite, real, mask = decoded(sample, size)
        parts[0].append(_to_tensor(composite))
        parts[1].append(_to_tensor(real))
        parts[2].append(torch.from_numpy(mask[np.newaxis].astype(np.float32) / 255))
    return [torch.stack(part) for part in parts]


def write_tars(pack: Pack, folder: Path, shards: int) -> list[str]:
    """The samples of ``pack`` as raw bytes in ``shards`` tars, three members a sample; returns their paths."""
    paths = []
    for shard, rows in enumerate(np.array_split(np.arange(len(pack)), shards)):
        paths.append(str(folder / f"{shard:03d}.tar"))
        with tarfile.open(paths[-1], "w") as tar:
            for row in rows:
                for key, images in zip(KEYS, (pack.composites, pack.reals, pack.masks), strict=True):
                    member = tarfile.TarInfo(f"{row:06d}.{key}")
                    content = images[row].tobytes()
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return paths


def webdataset_batches(paths: list[str], size: int, batch_size: int) -> Iterator[list[Tensor]]:
    """Batches of uint8 as those of ``decode_batch``, in the order of the tars, without a copy before the batch."""
    import webdataset

    def arrays(sample: dict[str, Any]) -> tuple[np.ndarray, ...]:
        return tuple(
            np.frombuffer(sample[key], np.uint8).reshape((size, size) if key == "mask" else (size, size, 3))
            for key in KEYS
        )

    for batch in webdataset.WebDataset(paths, shardshuffle=False).map(arrays).batched(batch_size):
        yield [torch.from_numpy(part) for part in batch]


def normalised(batch: Sequence[Tensor]) -> list[Tensor]:
    """A uint8 batch as float32 N3SS in [-1, 1] and N1SS in [0, 1]: what the feed does on the device."""
    composites, reals, masks = batch
    photos = [one.permute(0, 3, 1, 2).float().div_(127.5).sub_(1) for one in (composites, reals)]
    return [*photos, masks.unsqueeze(1).float().div_(255)]


def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    if image is None:
        raise UserError(f"{path} cannot be read by OpenCV: nrh data verify lists all such files")
    return image


def _to_tensor(photo: np.ndarray) -> Tensor:
    """torchvision's ToTensor and Normalize, which iSSAM uses."""
    tensor = torch.from_numpy(photo.transpose(2, 0, 1)).contiguous().float().div(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return tensor.sub_(mean).div_(std)
