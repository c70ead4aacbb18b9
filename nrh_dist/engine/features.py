"""A frozen encoder's output for every training photo, computed once and kept in the cache.

    <cache>/features-<hash>/values.f32       n x C x h x w, float32, in the order of the pack's training rows
    <cache>/features-<hash>/manifest.json    rows, shape, sha256 of the values

The hash is over the encoder's weights and what else shapes its output, the pack and the type of the device. Whoever
needs them at the same time, the ranks of one run or the trials of a sweep, computes them together: each claims chunks
of photos, by locks that go with the process. Nothing waits inside a collective. While they are made they live in
``<folder>.partial``, where a killed attempt is continued; under its final name a folder is complete.
"""

import copy
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from nrh_dist.data.feed import Features, gather
from nrh_dist.data.pack import Pack
from nrh_dist.engine.dist import Place
from nrh_dist.engine.files import sync_folder, write_at, write_json
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.location import cache_dir
from nrh_dist.models.ptc import FEATURE_CHANNELS, Encoder, feature_size
from nrh_dist.schema import Config

SCHEMA = 1  # to be raised when the encoder computes something else from the same weights
MODELS = ("ptc_dih", "ptc_att_dih", "gated")  # those that take features
CHUNK = 32  # photos: fixed, because a batch's size changes rounding
BLOCK = 1 << 24  # bytes read at a time
POLL = 0.2  # seconds between two looks at what others do
VALUES, MANIFEST, PROGRESS = "values.f32", "manifest.json", "progress"
DONE = b"\1"

Beat = Callable[[], None]
_meetings = itertools.count()


def is_exact(config: Config, model: nn.Module) -> bool:
    """Whether the encoder's output is a constant of each photo: frozen as a whole, and shown whole photos only."""
    if config.stage != "harmonisation" or config.model.name not in MODELS:
        return False
    return _encoder(model).frozen


def cached(model: nn.Module, config: Config, pack: Pack, place: Place, say: Say, beat: Beat) -> Features:
    """The features of the pack's training and validation rows by ``model``'s frozen encoder (on ``place.device``).

    Computed in float32 whatever ``train.precision``, and in eval mode; those of the real photos only where
    ``data.clean_fraction`` shows them. All ranks must call it, and leave it together; ``beat`` is called all the while.
    Features that are damaged are computed anew, which is said. ``UserError`` where the disk has no room for them.
    """
    encoder = copy.deepcopy(_encoder(model)).to(memory_format=torch.channels_last).eval()
    rows = np.sort(np.concatenate([pack.rows("train"), pack.rows("val")]))
    size = feature_size(pack.size)
    shape = (len(rows), FEATURE_CHANNELS, size, size)
    weights = digest_of(encoder)

    def of(source: str) -> np.ndarray:
        key = [SCHEMA, weights, config.model.width, config.model.batchnorm_eps, pack.digest, place.device.type, source]
        folder = cache_dir() / f"features-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}"

        @torch.no_grad()
        def compute(chunk: int) -> np.ndarray:
            images: Tensor = getattr(gather(pack, rows[chunk * CHUNK : (chunk + 1) * CHUNK], place.device), source)
            values: np.ndarray = encoder(images).contiguous().cpu().numpy()
            return values

        return _Making(folder, shape, compute, say, beat).values()

    composites = of("composite")
    reals = of("real") if config.data.clean_fraction > 0 else None
    _meet(place, beat)
    positions = np.full(len(pack), -1, np.int64)
    positions[rows] = np.arange(len(rows))
    return Features(composites, reals, positions)


class _Files(NamedTuple):
    """Descriptors of the files of a partial folder."""

    values: int
    progress: int  # one byte a chunk, 1 when its values are on the disk; locks on it are claims


class _Making:
    """The values of ``shape`` in ``folder``: opened, or made chunk by chunk together with others."""

    def __init__(
        self, folder: Path, shape: tuple[int, ...], compute: Callable[[int], np.ndarray], say: Say, beat: Beat
    ) -> None:
        self.folder, self.shape, self.compute, self.say, self.beat = folder, shape, compute, say, beat
        self.partial = folder.with_name(f"{folder.name}.partial")
        self.chunk_bytes = CHUNK * int(np.prod(shape[1:])) * 4
        self.length = int(np.prod(shape)) * 4
        self.chunks = -(-shape[0] // CHUNK)

    def values(self) -> np.ndarray:
        """The memory map of the finished values, float32 of ``shape``, read-only."""
        try:
            while not self._is_sound():
                self._work()
        except OSError as error:
            raise UserError(
                f"cannot keep the detector's features in {self.folder}: {error.strerror or error}; mend that, or give "
                "speed.features=false"
            ) from None
        return np.memmap(self.folder / VALUES, np.float32, mode="r", shape=self.shape)

    def _is_sound(self) -> bool:
        """Whether the folder is there, and what its manifest says; a damaged one is removed."""
        if not self.folder.exists():
            return False
        reason = self._fault()
        if reason is None:
            return True
        self.say(f"the features in {self.folder} are damaged ({reason}): they are computed again")
        aside = self.folder.with_name(f"{self.folder.name}.damaged-{os.getpid()}")
        try:
            os.rename(self.folder, aside)
        except FileNotFoundError:  # another process was faster
            return False
        shutil.rmtree(aside, ignore_errors=True)
        return False

    def _fault(self) -> str | None:
        try:
            stated = json.loads((self.folder / MANIFEST).read_text())
            if (self.folder / VALUES).stat().st_size != self.length:
                return f"{VALUES} has another size"
            with (self.folder / VALUES).open("rb") as file:
                actual = self._manifest(self._sha256(file.fileno()))
        except (OSError, ValueError) as error:
            return str(error)
        return None if stated == actual else f"{VALUES} does not fit {MANIFEST}"

    def _work(self) -> None:
        """Make what is missing of the partial folder, with whoever does so too, and give it its final name."""
        self._require_space()
        self.partial.mkdir(parents=True, exist_ok=True)
        descriptors: list[int] = []
        try:
            for name in (VALUES, PROGRESS):
                descriptors.append(os.open(self.partial / name, os.O_RDWR | os.O_CREAT, 0o644))
            files = _Files(*descriptors)
            if self.folder.exists():  # finished by another since the first look
                shutil.rmtree(self.partial, ignore_errors=True)
                return
            os.ftruncate(files.values, self.length)
            self._fill(files)
            self._finish(files)
        except FileNotFoundError:  # the partial folder got its final name meanwhile
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fill(self, files: _Files) -> None:
        told, is_waiting = -1, False
        while (missing := self._missing(files)).size:
            worked = False
            for chunk in missing.tolist():
                worked |= self._made(files, chunk)
                tenth = 10 * int(np.count_nonzero(self._done(files))) // self.chunks
                if worked and tenth > told:
                    told = tenth
                    photos = f"{self.shape[0]} photos, once, into {self.folder}"
                    self.say(f"computing the detector's features of {photos}: {10 * tenth} %")
            if not worked:
                if not is_waiting:
                    self.say(f"another process computes the rest of {self.folder}: waiting for it")
                is_waiting = True
                self._wait()

    def _made(self, files: _Files, chunk: int) -> bool:
        """Whether this process made the chunk now: nobody else holds it or has finished it."""
        if not _claim(files.progress, chunk):
            return False
        try:
            if os.pread(files.progress, 1, chunk) == DONE:
                return False
            values = np.ascontiguousarray(self.compute(chunk), np.float32)
            write_at(files.values, values.data.cast("B"), chunk * self.chunk_bytes)
            os.fsync(files.values)  # before it counts as done
            os.pwrite(files.progress, DONE, chunk)
        finally:
            fcntl.lockf(files.progress, fcntl.LOCK_UN, 1, chunk)
        self.beat()
        return True

    def _finish(self, files: _Files) -> None:
        while not self.folder.exists():
            if _claim(files.progress, self.chunks):  # one process writes the manifest
                write_json(self.partial / MANIFEST, self._manifest(self._sha256(files.values)))
                sync_folder(self.partial)
                os.rename(self.partial, self.folder)
                sync_folder(self.folder.parent)
                (self.folder / PROGRESS).unlink()
                return
            self._wait()

    def _wait(self) -> None:
        time.sleep(POLL)
        self.beat()

    def _done(self, files: _Files) -> np.ndarray:
        state = os.pread(files.progress, self.chunks, 0).ljust(self.chunks, b"\0")
        return np.frombuffer(state, np.uint8) == DONE[0]

    def _missing(self, files: _Files) -> np.ndarray:
        return np.flatnonzero(~self._done(files))

    def _manifest(self, sha256: str) -> dict[str, Any]:
        return {"schema": SCHEMA, "shape": list(self.shape), "sha256": sha256}

    def _sha256(self, descriptor: int) -> str:
        digest, position = hashlib.sha256(), 0
        while block := os.pread(descriptor, BLOCK, position):
            digest.update(block)
            position += len(block)
            self.beat()
        return digest.hexdigest()

    def _require_space(self) -> None:
        there = next(folder for folder in (self.partial, *self.partial.parents) if folder.exists())
        written = sum(file.stat().st_blocks * 512 for file in there.iterdir()) if there == self.partial else 0
        needed, free = self.length - written, shutil.disk_usage(there).free
        if needed > free:
            raise UserError(
                f"the detector's features of {self.shape[0]} photos need {needed / 1e9:.3g} GB, but {there} has "
                f"{free / 1e9:.3g} GB free: make room, move the cache (NRH_CACHE), or give speed.features=false"
            )


def _claim(descriptor: int, place: int) -> bool:
    """Lock one byte of the file for this process; false where another one holds it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        return False
    return True


def _encoder(model: nn.Module) -> Encoder:
    detector: Any = model.detector
    encoder: Encoder = detector.encoder
    return encoder


def digest_of(encoder: nn.Module) -> str:
    """The SHA-256 of an encoder's weights and statistics."""
    digest = hashlib.sha256()
    for name, value in encoder.state_dict().items():
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _meet(place: Place, beat: Beat) -> None:
    """Wait until all ranks are here: through the store, because a collective must not wait as long as this may take."""
    if place.world == 1:
        return
    store, key = dist.distributed_c10d._get_default_store(), f"features/{next(_meetings)}"
    store.add(key, 1)
    while store.add(key, 0) < place.world:
        time.sleep(POLL)
        beat()
