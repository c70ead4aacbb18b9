"""From the pack to batches on the device; which rows, and in which order, is for ``order`` to say."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nrh_dist.data.pack import Pack

AHEAD = 2  # batches that wait for the device
UPLOAD = 256  # rows at a time into the device's memory
SPARE = 0.1  # of the device's memory stays free beside a resident pack


class Batch(NamedTuple):
    """The samples of some rows of a pack, on one device; S is the pack's size. N may be 0."""

    rows: np.ndarray  # N, rows of the pack
    composite: Tensor  # N3SS in [-1, 1], channels last
    real: Tensor  # N3SS in [-1, 1], channels last
    mask: Tensor  # N1SS in [0, 1]
    features: Tensor | None = None  # N x C x h x w, a frozen encoder's output for ``composite``, where it is kept
    real_features: Tensor | None = None  # the same for ``real``


class Features(NamedTuple):
    """A frozen encoder's output for the rows of a pack; n of them are there."""

    composites: np.ndarray  # float32 n x C x h x w
    reals: np.ndarray | None  # the same, where the real photos are shown to the encoder too
    positions: np.ndarray  # int64, one a row of the pack: where its features are; -1 = nowhere


class Feed:
    """Batches of some ``rows`` of ``pack`` on ``device``: moved there as uint8, cast and normalised there.

    ``stream``: one thread gathers rows of the memory map into (on a GPU pinned) buffers, ahead of the device.
    ``resident``: the rows are copied to the device once and gathered there. ``auto`` streams until ``fits`` says
    that they fit beside a training step. The batches are the same, bit for bit.
    """

    def __init__(
        self,
        pack: Pack,
        rows: np.ndarray,
        device: torch.device | str,
        mode: Literal["auto", "resident", "stream"] = "stream",
        features: Features | None = None,
    ) -> None:
        self.pack, self.rows, self.device, self.mode = pack, rows, torch.device(device), mode
        self.features = features
        self._resident: _Resident | None = None
        if mode == "resident":
            self.make_resident()

    @property
    def is_resident(self) -> bool:
        """Whether the rows are in the device's memory."""
        return self._resident is not None

    @property
    def nbytes(self) -> int:
        """Bytes of all rows: images, masks, features."""
        return len(self.rows) * sum(source.nbytes // max(len(source), 1) for source in self._sources().values())

    def fits(self) -> bool:
        """Whether ``auto`` should make the rows resident; asked after a step, whose memory is taken by then."""
        if self.mode != "auto" or self.is_resident or self.device.type != "cuda":
            return False
        free, total = torch.cuda.mem_get_info(self.device)
        return self.nbytes <= free - SPARE * total

    def make_resident(self, beat: Callable[[], None] = lambda: None) -> None:
        """Copy the rows to the device; calls ``beat`` as it gets on."""
        self._resident = _Resident(self.rows, len(self.pack), self._sources(), self._positions, self.device, beat)

    def gather(self, rows: np.ndarray) -> Batch:
        """The batch of ``rows``; empty rows, empty batch."""
        return self._finished(rows, self.taken(rows))

    def batches(self, parts: Iterable[np.ndarray]) -> Iterator[Batch]:
        """A batch for each of ``parts``, in order, gathered ahead of time."""
        waiting: deque[tuple[np.ndarray, Future[dict[str, Tensor]]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as thread:
            for rows in parts:
                waiting.append((rows, thread.submit(self.taken, rows)))
                if len(waiting) > AHEAD:
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)

    def _next(self, waiting: deque[tuple[np.ndarray, Future[dict[str, Tensor]]]]) -> Batch:
        rows, taken = waiting.popleft()
        return self._finished(rows, taken.result())

    def _sources(self) -> dict[str, np.ndarray[Any, Any]]:
        """All that a batch is made of, by the names of ``Batch``."""
        pack, features = self.pack, self.features
        sources: dict[str, np.ndarray[Any, Any]] = {
            "composite": pack.composites,
            "real": pack.reals,
            "mask": pack.masks,
        }
        if features is not None:
            sources["features"] = features.composites
            if features.reals is not None:
                sources["real_features"] = features.reals
        return sources

    def _positions(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Where ``rows`` of the pack lie in the source ``name``."""
        if "features" not in name:
            return rows
        assert self.features is not None
        positions = self.features.positions[rows]
        assert (positions >= 0).all(), "every row that is fed must have its features"
        return positions

    def taken(self, rows: np.ndarray) -> dict[str, Tensor]:
        """What a batch of ``rows`` is made of, uint8, still in host memory unless it is resident."""
        assert rows.size == 0 or (rows.min() >= 0 and rows.max() < len(self.pack)), "rows must be rows of the pack"
        if self._resident:
            return self._resident.take(rows)
        return {
            name: _take(source, self._positions(name, rows), self.device) for name, source in self._sources().items()
        }

    def _finished(self, rows: np.ndarray, taken: dict[str, Tensor]) -> Batch:
        there = {name: tensor.to(self.device, non_blocking=True) for name, tensor in taken.items()}
        return Batch(
            rows=rows,
            composite=_normalised(there["composite"]),
            real=_normalised(there["real"]),
            mask=there["mask"].unsqueeze(1).float().div_(255),
            features=there.get("features"),
            real_features=there.get("real_features"),
        )


class _Resident:
    """Rows of all sources in the memory of a device."""

    def __init__(
        self,
        rows: np.ndarray,
        length: int,
        sources: dict[str, np.ndarray],
        positions: Callable[[str, np.ndarray], np.ndarray],
        device: torch.device,
        beat: Callable[[], None],
    ) -> None:
        place = np.full(length, -1, np.int64)
        place[rows] = np.arange(len(rows))
        self.place, self.device = torch.from_numpy(place), device
        self.tensors = {
            name: torch.empty(
                (len(rows), *source.shape[1:]), dtype=_take(source, rows[:0], device).dtype, device=device
            )
            for name, source in sources.items()
        }
        for start in range(0, len(rows), UPLOAD):
            part = rows[start : start + UPLOAD]
            for name, source in sources.items():
                self.tensors[name][start : start + len(part)] = _take(source, positions(name, part), device)
            beat()

    def take(self, rows: np.ndarray) -> dict[str, Tensor]:
        places = self.place[torch.from_numpy(rows)].to(self.device)
        return {name: tensor.index_select(0, places) for name, tensor in self.tensors.items()}


def gather(pack: Pack, rows: np.ndarray, device: torch.device | str) -> Batch:
    """One batch of ``rows`` on ``device``, without a feed."""
    return Feed(pack, rows, device).gather(rows)


def _take(source: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows of ``source`` as a tensor in host memory, pinned where they go on to a GPU."""
    dtype = torch.uint8 if source.dtype == np.uint8 else torch.float32
    buffer = torch.empty((len(rows), *source.shape[1:]), dtype=dtype, pin_memory=device.type == "cuda")
    np.take(source, rows, axis=0, out=buffer.numpy(), mode="clip")  # the default mode copies through a second buffer
    return buffer


def _normalised(images: Tensor) -> Tensor:
    """uint8 NHWC -> float NCHW in [-1, 1]; the memory stays NHWC, which is channels last."""
    return images.permute(0, 3, 1, 2).float().sub_(127.5).div_(127.5)
