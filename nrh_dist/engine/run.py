"""One training run from its configuration, in this process or under torchrun, without Ray.

python -m nrh_dist.engine.run preset=tiny data.root=DATA model.name=dih_nm
torchrun --nproc-per-node 2 -m nrh_dist.engine.run preset=tiny data.root=DATA model.name=dih_nm
"""

import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist

from nrh_dist import config as configuration
from nrh_dist.data import thresholds
from nrh_dist.data.feed import Feed
from nrh_dist.data.layouts import Source
from nrh_dist.data.pack import Pack, cached_pack, check, distinct_objects, open_pack
from nrh_dist.data.samples import is_held_out
from nrh_dist.engine import features, fetched, mirror, rundir, speed, strips, track
from nrh_dist.engine.assemble import new_model
from nrh_dist.engine.dist import Place, torchrun_place
from nrh_dist.engine.fit import Fit, Report
from nrh_dist.engine.notice import Ask, Notices, Signal, nothing
from nrh_dist.engine.progress import Say
from nrh_dist.engine.tasks import task_of
from nrh_dist.engine.watchdog import standstills, watched
from nrh_dist.errors import UserError
from nrh_dist.location import is_remote
from nrh_dist.schema import Config


def run(
    config: Config,
    pack_path: Path,
    place: Place,
    report: Report,
    say: Say,
    asked: Ask = nothing,
    settled: bool = False,
) -> dict[str, Any]:
    """Train ``config`` on a finished pack as one of ``place.world`` processes; returns the last epoch's row.

    ``asked`` is what the launcher knows of the near future, see notice.py. A process that stands still for
    ``scale.hang_seconds`` ends itself, see watchdog.py. With ``storage``, what is newer there is fetched first, and
    checkpoints go there as they come, see mirror.py; ``settled``: an epoch is reported when they are there.
    """
    say = say if place.is_main else _mute
    folder = configuration.run_dir(config)
    folder.mkdir(parents=True, exist_ok=True)
    notices = Notices(folder, asked)
    if place.is_main:
        for stacks in standstills(folder):
            say(f"an earlier start stood still: {stacks} says where")
    if place.device.index is not None:
        torch.cuda.set_device(place.device)  # collectives of Python objects go by the current device
    if place.device.type == "cpu":
        speed.keep_memory(config.speed.keep_memory)
    pack = open_pack(pack_path)
    train_rows, val_rows = split_rows(pack, config)
    model = new_model(config, say).to(place.device)
    task = task_of(config, pack)
    tracker = track.open_tracker(config, folder, pack, say) if place.is_main else track.Nothing()
    shown = strips.chosen(val_rows)
    copy = mirror.mirror_of(config, folder, say)

    def tell(row: dict[str, Any]) -> None:
        pictures = folder / strips.FOLDER / f"epoch-{row['epoch']:04d}"
        tracker.log(row, lambda: strips.write(config, model, fit.feed, shown, pictures))
        if settled:
            copy.settle()
        report(row)

    try:
        with mirror.completed(copy, place, say), watched(folder, place.rank, config.scale.hang_seconds) as beat:
            fit = Fit(config, model, task, pack, train_rows, val_rows, folder, place, tell, say, notices, beat, copy)
            fit.restore()
            kept = None
            if config.speed.features and features.is_exact(config, model):  # of the encoder that is trained with
                kept = features.cached(model, config, pack, place, say, beat)
            beat(until_slow=True)  # the first step may be compiled
            rows = np.sort(np.concatenate([train_rows, val_rows]))
            return fit.run(Feed(pack, rows, place.device, feed_mode(config), kept))
    finally:
        tracker.finish()


def feed_mode(config: Config) -> Literal["auto", "resident", "stream"]:
    """``speed.feed``; where ranks share a GPU each would measure what the others are about to take."""
    shares = config.scale.gpus_per_worker is not None and 0 < config.scale.gpus_per_worker < 1
    return "stream" if config.speed.feed == "auto" and shares else config.speed.feed


def find_pack(config: Config, say: Say) -> Path:
    """The pack to train on: ``data.pack``, or ``data.root`` packed once into the cache.

    ``UserError`` if neither is given, its size is not ``data.size``, it has nothing to harmonise, its human thresholds
    do not fit it, its bytes are not those that were packed, or train or val would be empty.
    """
    data = config.data
    if data.pack:
        pack = open_pack(fetched.pack(data.pack, say) if is_remote(data.pack) else Path(data.pack))
    elif data.root:
        source = Source(Path(data.root), Path(data.annotations) if data.annotations else None)
        pack = cached_pack(source, data.size, say, max_bad_files=data.max_bad_files)
    else:
        raise UserError(
            "no data: give data.root=FOLDER (iHarmony4 layout) or data.pack=PACK; nrh data sample makes one"
        )
    if pack.size != config.data.size:
        raise UserError(
            f"the pack {pack.root} is {pack.size} px and data.size={config.data.size}: give data.size={pack.size}"
        )
    if config.stage == "harmonisation" and not pack.has_composites:
        raise UserError(f"{pack.root} holds photos without composites: nrh data coco-exp makes some; give its folder")
    train, val = split_rows(pack, config)
    if config.stage != "harmonisation":
        _say_about_detector_data(pack, config, len(train) + len(val), say)
    check(pack.root)
    if pack.skipped:
        say(f"{pack.root} lacks {len(pack.skipped)} samples whose files could not be used; its pack.json names them")
    if (leaked := len(_groups(pack, "train") & _judged(pack))) and not config.data.drop_leaked:
        say(
            f"{leaked} photos or scenes are in both train and test (or val): data.drop_leaked=true leaves them out of "
            "training"
        )
    if (listed := len(pack.rows("val"))) and data.val_fraction:
        say(f"the val list names {listed} samples, which stay unused: data.val_fraction=0 validates on them")
    return pack.root


def split_rows(pack: Pack, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Train and validation rows: those of the pack's training list, separated by photo group; or both lists.

    For the detector, each object of a photo comes once; without a mask there is nothing to shift.
    """
    train, val = pack.rows("train"), pack.rows("val")
    if config.stage != "harmonisation":
        train, val = distinct_objects(pack, train), distinct_objects(pack, val)
    if config.data.drop_leaked:
        judged = _judged(pack)
        train = np.array([row for row in train if pack.groups[row] not in judged], dtype=train.dtype)
    if fraction := config.data.val_fraction:
        held_out = np.array([is_held_out(pack.groups[row], fraction, config.seed) for row in train], dtype=bool)
        train, val = train[~held_out], train[held_out]
    if not len(train) or not len(val):
        raise UserError(
            f"data.val_fraction={config.data.val_fraction} leaves {len(train)} training and {len(val)} validation "
            f"images in {pack.root}: both must be above 0; try another data.val_fraction"
        )
    return train, val


def _say_about_detector_data(pack: Pack, config: Config, used: int, say: Say) -> None:
    rows = pack.rows("train")
    empty = int((pack.area_fractions[rows] == 0).sum())
    say(f"{used} objects in {len(rows)} samples" + (f"; {empty} left out, whose mask is empty" if empty else ""))
    if config.stage == "equivariance":
        return
    if config.data.thresholds:
        measured = int((~np.isnan(thresholds.read(Path(config.data.thresholds), pack.names)).any(axis=1)).sum())
        say(f"{measured} of {len(pack)} samples have human thresholds; the published means stand in for the others")
    else:
        say("no data.thresholds: the published means of human thresholds stand in, -0.248 and 0.227 stops")


def _groups(pack: Pack, split: str) -> set[str]:
    return {pack.groups[row] for row in pack.rows(split)}


def _judged(pack: Pack) -> set[str]:
    return _groups(pack, "test") | _groups(pack, "val")


def _mute(_: str) -> None:
    pass


def main(words: list[str]) -> None:
    """Entry point of ``python -m nrh_dist.engine.run key=value ...`` and of torchrun.

    After SIGTERM, which torchrun passes on, the run saves a checkpoint and ends; a second one ends it at once.
    """
    config = configuration.load(None, words)
    asked = Signal(signal.SIGTERM)
    place = torchrun_place()
    pack_path = find_pack(config, print if place.is_main else _mute)
    with rundir.claimed(config, print) if place.is_main else nullcontext():
        run(config, pack_path, place, lambda _: None, print, asked)
    if dist.is_initialized():
        dist.barrier()  # no rank leaves while another one still talks to it
        dist.destroy_process_group()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"nrh: {error}")
