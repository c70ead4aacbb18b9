"""Scoring: checkpoints and pack rows in, numbers of each image and checkpoint out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nrh_dist import metrics
from nrh_dist.data.feed import Batch, gather
from nrh_dist.data.pack import Pack, open_pack
from nrh_dist.engine import checkpoint, select
from nrh_dist.engine.assemble import require_harmoniser, trained_model
from nrh_dist.engine.features import digest_of
from nrh_dist.engine.measures import Measures
from nrh_dist.errors import UserError
from nrh_dist.models import Prediction
from nrh_dist.models.two_stage import TwoStage
from nrh_dist.perceptual import Perceptual
from nrh_dist.schema import MASKED_MODEL

Predict = Callable[[Tensor, Tensor], Prediction]

TWO_STAGE = "two_stage"
TRUE_MASKS = "-true-masks"  # how the run of C_s ends; before it stands the run of C_p
PASTED = "-pasted"  # how the run of a masked model ends whose background is the composite's


class Entry(NamedTuple):
    """One thing that is scored: a checkpoint folder, or doing nothing (``path`` None). ``run`` is its unique name.

    With ``true_masks``, the harmoniser in the two-stage checkpoint at ``path``, given the true masks. With ``pasted``,
    a masked model whose output counts inside the mask only: the composite's background, which is right, is put back.
    """

    run: str
    model: str
    path: Path | None
    size: int | None
    true_masks: bool = False
    pasted: bool = False

    @property
    def is_derived(self) -> bool:
        """Whether it shows something of a checkpoint that another entry stands for."""
        return self.true_masks or self.pasted


def entries(words: Sequence[str], paste: bool = False) -> list[Entry]:
    """The checkpoints that ``words`` mean, after the row ``identity``, which is always there and always first.

    Each ``two_stage`` (C_p) is followed by its own harmoniser with the true masks (C_s), as the run ``RUN-true-masks``;
    with ``paste``, each ``dih_m`` by itself with its background pasted back, as ``RUN-pasted``.
    ``UserError`` for a word that is no checkpoint, for detectors, and for checkpoints of different sizes.
    """
    found = [Entry(select.IDENTITY, select.IDENTITY, None, None)]
    for word in words:
        if word == select.IDENTITY:
            continue
        path = select.resolve(word)
        meta = checkpoint.read_meta(path)
        require_harmoniser(meta, word)
        run = unique_run(select.run_of(path), found)
        found.append(Entry(run, meta["model"]["name"], path, meta["size"]))
        if meta["model"]["name"] == TWO_STAGE:
            found.append(Entry(run + TRUE_MASKS, MASKED_MODEL, path, meta["size"], true_masks=True))
        elif meta["model"]["name"] == MASKED_MODEL and paste:
            found.append(Entry(run + PASTED, MASKED_MODEL, path, meta["size"], pasted=True))
    require_one_size(found)
    return found


def require_one_size(found: Sequence[Entry]) -> None:
    """``UserError`` where the checkpoints are of different sizes: their numbers could not stand side by side."""
    sizes = {entry.size: entry.run for entry in found if entry.size}
    if len(sizes) > 1:
        listed = ", ".join(f"{run} {size} px" for size, run in sizes.items())
        raise UserError(f"all checkpoints in one evaluation must share one size: {listed}; evaluate them apart")


def pairs(found: Sequence[Entry]) -> list[tuple[str, str]]:
    """The runs of C_p and C_s of each two-stage checkpoint."""
    return [(entry.run.removesuffix(TRUE_MASKS), entry.run) for entry in found if entry.true_masks]


class Scorer:
    """Models and pack, loaded once; scores any rows of the pack.

    One thread and fixed batches: the numbers do not depend on how the rows are spread over processes. An encoder that
    several models have in common, as those that were trained with a frozen one, runs once a batch.
    """

    def __init__(self, pack: Path, entries: Sequence[Entry], lpips: bool, peaks: bool, device: torch.device) -> None:
        be_deterministic(device)
        self.pack: Pack = open_pack(pack)
        self.entries, self.device, self.peaks = list(entries), device, peaks
        paths = dict.fromkeys(entry.path for entry in entries if entry.path)
        loaded = {path: trained_model(path) for path in paths}
        _share_encoders(loaded.values())
        models = {path: model.to(device) for path, (model, _) in loaded.items()}
        self.predict = [_predictor(entry, models[entry.path]) if entry.path else None for entry in entries]
        self.perceptual = Perceptual().to(device) if lpips else None

    @torch.no_grad()
    def score(self, rows: np.ndarray) -> np.ndarray:
        """``measures.names`` of each entry, one entry after the other, for one batch of rows: N x (E K) float64."""
        batch = gather(self.pack, rows, self.device)
        measured = Measures(batch, self.perceptual, self.peaks)
        return np.concatenate([measured.of(one).numpy() for one in self._predictions(batch)], axis=1)

    @torch.no_grad()
    def render(self, row: int) -> dict[str, dict[str, np.ndarray]]:
        """Pictures of one pack row, uint8, by run: the ``outputs`` of all entries, the ``masks`` of their detectors.

        A mask is HW, or HW3 where it has two classes: red for a negative shift, green for a positive one.
        """
        batch = gather(self.pack, np.array([row]), self.device)
        outputs, masks = {}, {}
        for entry, prediction in zip(self.entries, self._predictions(batch), strict=True):
            if entry.path is None:
                continue
            outputs[entry.run] = picture(metrics.to_255(prediction.image)[0])
            if prediction.signs is not None:
                signs = torch.cat([prediction.signs[0], torch.zeros_like(prediction.signs[0, :1])])
                masks[entry.run] = picture(signs * 255)
            elif prediction.mask is not None:
                masks[entry.run] = picture(prediction.mask[0] * 255)
        return {"outputs": outputs, "masks": masks}

    def _predictions(self, batch: Batch) -> Iterator[Prediction]:
        for predict in self.predict:
            yield predict(batch.composite, batch.mask) if predict else Prediction(batch.composite, None, None)


class _Shared(nn.Module):
    """An encoder in the place of several equal ones: it remembers what it made of the last batch."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, image: Tensor) -> Tensor:
        if self._last is None or self._last[0] is not image:
            self._last = image, self.encoder(image)
        return self._last[1]


def _share_encoders(loaded: Iterable[tuple[nn.Module, dict[str, Any]]]) -> None:
    """Let detectors with the same encoder, to the bit, use one."""
    shared: dict[tuple[str, float], _Shared] = {}
    for model, meta in loaded:
        detector: Any = getattr(model, "detector", None)
        if detector is not None:
            key = digest_of(detector.encoder), meta["model"]["batchnorm_eps"]
            detector.encoder = shared.setdefault(key, _Shared(detector.encoder))


def _predictor(entry: Entry, model: nn.Module) -> Predict:
    if entry.true_masks:
        assert isinstance(model, TwoStage)
        return model.with_true_mask
    if entry.pasted:
        return lambda image, mask: _pasted(model(image, mask), image, mask)
    return model


def _pasted(prediction: Prediction, composite: Tensor, mask: Tensor) -> Prediction:
    """Output inside the mask, composite outside, the soft edge of a mask mixing both."""
    return prediction._replace(image=torch.lerp(composite, prediction.image, mask))


def be_deterministic(device: torch.device) -> None:
    """One thread on a CPU and torch's deterministic operations in this process."""
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)


def picture(image: Tensor) -> np.ndarray:
    """CHW float in 0..255 as HWC (or HW) uint8."""
    array = image.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return array[..., 0] if array.shape[-1] == 1 else array


def unique_run(run: str, found: Sequence[Entry]) -> str:
    """``run``, or with the first number behind it that makes it unique, also with an ending added."""
    taken = {entry.run for entry in found}
    names = (run, *(f"{run}-{number}" for number in range(2, 10_000)))
    return next(name for name in names if not {name, name + TRUE_MASKS, name + PASTED} & taken)
