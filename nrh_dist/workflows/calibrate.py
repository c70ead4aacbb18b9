"""``nrh calibrate``: how reluctant a finished ``gated`` model has to be, so that it rarely makes a photo worse.

The threshold of its gate, the strength of its correction and the least change that it makes are chosen on the
validation photos that it was trained beside, never on test photos; what is written is an exported folder.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nrh_dist import config as configuration
from nrh_dist.data.pack import Pack, open_pack
from nrh_dist.engine import checkpoint, select
from nrh_dist.engine.assemble import trained_model
from nrh_dist.engine.dist import own_device
from nrh_dist.engine.export import Calibration, export, require_new
from nrh_dist.engine.progress import Progress, Say
from nrh_dist.engine.run import find_pack, split_rows
from nrh_dist.engine.scan import Scan, scan
from nrh_dist.errors import UserError
from nrh_dist.location import is_remote
from nrh_dist.models.gated import Gated
from nrh_dist.report import bootstrap
from nrh_dist.report.bootstrap import Estimate
from nrh_dist.report.statistics import MOST_WORSE, is_worse

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))
STRENGTHS = tuple(round(0.1 * step, 1) for step in range(11))  # 0: it does nothing, which harms no photo
LEAST_CHANGES = (0.0, *(round(2 ** (step / 2), 1) for step in range(22)))  # MSE: 1, 1.4, 2, ... 1448.2


class Choice(NamedTuple):
    """A threshold, a strength and a least change, with what they do to the N images they were chosen on."""

    threshold: float
    strength: float
    least_change: float
    mse: float
    identity_mse: float
    worse1: Estimate
    changed: float  # the share of images that it changes


def calibrate(word: str, out: Path, say: Say, data: str = "", most: float = MOST_WORSE) -> Path:
    """Choose for the ``gated`` checkpoint that ``word`` means, and write it with what was chosen to the new ``out``.

    ``data``: a folder or pack whose validation photos decide; empty: what the model was trained on. ``UserError`` for
    another model, one without a gate, and where there are too few validation photos.
    """
    if not 0 < most < 1:
        raise UserError(f"--most-worse {most}: must be a share of the images, above 0 and below 1")
    require_new(out)
    path = select.resolve(word)
    model = gated(path)
    pack, rows = validation(path, data, say)
    say(f"scanning {len(THRESHOLDS)} thresholds and {len(STRENGTHS)} strengths on {len(rows):,} validation composites")
    progress = Progress(len(rows), say)
    device = own_device()
    found = scan(model.to(device), pack, rows, THRESHOLDS, STRENGTHS, device, lambda n: progress.add(n, "scanned"))
    chosen = choose(found, photos_of(pack, rows), most)
    text = described(chosen, len(rows), most)
    say(text)
    return export(path, [], out, say, Calibration(*chosen[:3], text))


def gated(path: Path) -> Gated:
    """The model of a checkpoint folder. ``UserError`` where it has no gate to calibrate."""
    model, meta = trained_model(path)
    if not isinstance(model, Gated) or model.is_open:
        what = meta["model"]["name"] + ("" if not isinstance(model, Gated) else " without a gate")
        raise UserError(f"{path} is a {what} checkpoint: only gated has a gate to calibrate")
    return model


def validation(path: Path, data: str, say: Say) -> tuple[Pack, np.ndarray]:
    """The pack and the rows of its photos that the checkpoint was validated on, or that its rules give for ``data``."""
    config = configuration.from_flat(checkpoint.read_meta(path)["config"])
    if data:
        config.data.pack, config.data.root = (data, None) if is_remote(data) else (None, data)
    try:
        pack = open_pack(find_pack(config, say))
        return pack, split_rows(pack, config)[1]
    except UserError as error:
        raise UserError(f"{error}. Here --data names other data, as nrh data coco-exp --split val makes them") from None


def photos_of(pack: Pack, rows: np.ndarray) -> np.ndarray:
    """The photo of each row, as numbers from 0."""
    return np.unique([pack.groups[row] for row in rows], return_inverse=True)[1]


def choose(found: Scan, photos: np.ndarray, most: float) -> Choice:
    """The lowest mean MSE of those whose share made worse by more than 1 is at most ``most``, at its upper 95 % bound.

    Doing nothing is among them, so that there is always one. Of equals, the one that changes least.
    """
    if (count := len(np.unique(photos))) < bootstrap.FEWEST_PHOTOS:
        raise UserError(
            f"{count} validation photos are too few to tell how often it does harm: at least "
            f"{bootstrap.FEWEST_PHOTOS} are needed; give --data with more"
        )
    reluctant_first = (one for t in reversed(range(len(found.thresholds))) for one in _choices(found, t, photos))
    return min((one for one in reluctant_first if one.worse1.bounds[1] <= most), key=lambda one: one.mse)


def _choices(found: Scan, t: int, photos: np.ndarray) -> list[Choice]:
    """All with the threshold at place ``t``, what changes least first."""
    places = [(s, least) for s in range(len(found.strengths)) for least in reversed(LEAST_CHANGES)]
    outcomes = [found.leaving_alone(t, s, least) for s, least in places]
    worse = np.stack([is_worse(mse, found.identity_mse) for mse, _ in outcomes], axis=1)
    shares = bootstrap.means(photos, worse.astype(float))
    threshold, identity_mse = found.thresholds[t], float(found.identity_mse.mean())
    return [
        Choice(
            threshold,
            found.strengths[s],
            least,
            float(mse.mean()),
            identity_mse,
            _allowed_for_unseen(share) if changed.any() else share,
            float(changed.mean()),
        )
        for (s, least), (mse, changed), share in zip(places, outcomes, shares, strict=True)
    ]


def _allowed_for_unseen(share: Estimate) -> Estimate:
    """With a bound that is at least the exact one for no harm at all in so many photos, which no bootstrap knows of."""
    low, high = share.bounds
    return replace(share, interval=(low, max(high, least_bound(share.photos))))


def least_bound(photos: int) -> float:
    """The upper 95 % bound of a share where none of ``photos`` was seen to have it (Clopper and Pearson, 1934)."""
    return float(1 - 0.025 ** (1 / photos))


def described(chosen: Choice, images: int, most: float) -> str:
    """The choice as a sentence."""
    if not chosen.strength:
        photos = chosen.worse1.photos
        return (
            f"No threshold with any correction keeps the share of {images:,} validation composites made worse by more "
            f"than 1 MSE at {100 * most:g} % at most (upper 95 % bound; that of no harm at all in {photos} photos is "
            f"{100 * least_bound(photos):.1f} %): it was set to do nothing."
        )
    low, high = chosen.worse1.bounds
    return (
        f"Gate threshold {chosen.threshold:g}, correction strength {chosen.strength:g}, least change "
        f"{chosen.least_change:g} MSE: on {images:,} validation composites MSE {chosen.mse:.2f}, "
        f"{chosen.identity_mse:.2f} for doing nothing; {100 * chosen.worse1.value:.1f} % made worse by more than 1 "
        f"(95 %: {100 * low:.1f} to {100 * high:.1f}; at most {100 * most:g} was asked for); "
        f"it changes {100 * chosen.changed:.0f} % of them."
    )
