"""The checkpoints of one training: written by the main rank, found again by all."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from nrh_dist.config import identity
from nrh_dist.engine import checkpoint, select, track
from nrh_dist.engine.dist import Place, from_main
from nrh_dist.engine.progress import Say
from nrh_dist.engine.state import TrainState
from nrh_dist.errors import UserError
from nrh_dist.schema import Config


class Keeper:
    """Saves and restores ``model``, ``optimiser`` (None: nothing learns) and the state of the run in ``folder``.

    ``digest`` is that of the pack: a run never goes on with other data.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        place: Place,
        digest: str,
        model: nn.Module,
        optimiser: Optimizer | None,
        say: Say,
    ) -> None:
        self.config, self.folder, self.place, self.digest = config, folder, place, digest
        self.model, self.optimiser, self.say = model, optimiser, say

    def save(self, state: TrainState, metrics: dict[str, Any]) -> None:
        """Write a checkpoint and drop what is older than the last few, but never the best."""
        if not self.place.is_main:
            return
        meta = {
            "stage": self.config.stage,
            "model": asdict(self.config.model),
            "size": self.config.data.size,
            "epoch": state.epoch,
            "step": state.step,
            "pack": self.digest,
            "world_size": self.place.world,
            "metrics": metrics,
            "config": identity(self.config),
        }
        optimiser = self.optimiser.state_dict() if self.optimiser else {}
        saved = {"state": state.to_dict(), "optimiser": optimiser}
        keep = self.config.train.keep_checkpoints
        checkpoint.store(self.folder, self.model.state_dict(), saved, meta, keep, self._best(state))

    def finish_epoch(self, state: TrainState, row: dict[str, Any]) -> bool:
        """Row, checkpoint, best, in this order: a kill in between costs the epoch, never consistency.

        Whether the epoch is the best so far.
        """
        metric, name = self.config.train.best_metric, checkpoint.checkpoint_name(state.epoch, state.step)
        if row[metric] < state.best_value:
            state.best_value, state.best_name = row[metric], name
        if self.place.is_main:
            checkpoint.making_room(self.folder, self._best(state), lambda: track.append_row(self.folder, row))
        self.save(state, row)
        self.write_best(state)
        return state.best_name == name

    def write_best(self, state: TrainState) -> None:
        """Name the best checkpoint in ``best.json``."""
        best, metric = self._best(state), self.config.train.best_metric
        if self.place.is_main and best:
            write = partial(select.write_best, self.folder, best, metric, state.best_value)
            checkpoint.making_room(self.folder, best, write)

    def _best(self, state: TrainState) -> Path | None:
        return self.folder / checkpoint.FOLDER / state.best_name if state.best_name else None

    def restore(self) -> TrainState | None:
        """Load the newest checkpoint that verifies into model and optimiser; its state, or None where there is none.

        The main rank chooses, for all. Says which were skipped, and why. ``UserError`` for one of other data.
        """
        path = None
        if self.place.is_main:
            path, skipped = checkpoint.newest(self.folder)
            for damaged, reason in skipped:
                self.say(f"skipped the checkpoint {damaged.name}: {reason}")
        path = from_main(path, self.place)
        state = self._load(path) if path is not None else None
        if self.place.is_main:
            track.drop_rows_after(self.folder, state.epoch if state else 0)
        return state

    def _load(self, path: Path) -> TrainState:
        meta = checkpoint.read_meta(path)
        if meta["pack"] != self.digest:
            raise UserError(f"{path} was trained on other data than this pack's: choose another run.name")
        saved = checkpoint.read_state(path)
        self.model.load_state_dict(checkpoint.read_weights(path))
        if self.optimiser:
            self.optimiser.load_state_dict(saved["optimiser"])
        self.say(f"continuing from {path.name}")
        state = TrainState(**saved["state"])
        self._require_best(state)
        self.write_best(state)
        return state

    def _require_best(self, state: TrainState) -> None:
        """Where the best checkpoint was damaged, the best of the others takes its place."""
        best, metric = self._best(state), self.config.train.best_metric
        if best is None or not (reason := checkpoint.fault(best)):
            return
        found = checkpoint.best_of(self.folder, metric)
        state.best_name, state.best_value = (found[0].name, found[1]) if found else ("", float("inf"))
        self.say(f"the best checkpoint {best.name} is lost ({reason}); now it is {state.best_name or 'none'}")
