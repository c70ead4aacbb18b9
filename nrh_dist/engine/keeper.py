"""The checkpoints of one training: written by the main rank, found again by all."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from nrh_dist.config import identity
from nrh_dist.engine import checkpoint, select, track
from nrh_dist.engine.dist import Place, from_main, name_of
from nrh_dist.engine.mirror import NOWHERE, Copy
from nrh_dist.engine.progress import Say
from nrh_dist.engine.state import TrainState
from nrh_dist.errors import UserError
from nrh_dist.models.weights import load_part
from nrh_dist.schema import Config


class Keeper:
    """Saves and restores ``model``, ``optimiser`` (None: nothing learns) and the state of the run in ``folder``.

    ``digest`` is that of the pack: a run never goes on with other data. ``copy`` is that of the folder, in the storage.
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
        copy: Copy = NOWHERE,
    ) -> None:
        self.config, self.folder, self.place, self.digest = config, folder, place, digest
        self.model, self.optimiser, self.say, self.copy = model, optimiser, say, copy

    def save(self, state: TrainState, metrics: dict[str, Any]) -> None:
        """Write a checkpoint and drop what is older than the last few, but never the best. All ranks must call it."""

        def write() -> None:
            self._store(state, metrics)
            self.copy.send()

        self._by_main(write)

    def finish_epoch(self, state: TrainState, row: dict[str, Any]) -> bool:
        """Row, checkpoint, best, in this order: a kill in between costs the epoch, never consistency.

        Whether the epoch is the best so far. All ranks must call it.
        """
        metric, name = self.config.train.best_metric, checkpoint.checkpoint_name(state.epoch, state.step)
        if row[metric] < state.best_value:
            state.best_value, state.best_name = row[metric], name

        def write() -> None:
            checkpoint.making_room(self.folder, self._best(state), lambda: track.append_row(self.folder, row))
            self._store(state, row)
            self._name_best(state)
            self.copy.send()

        self._by_main(write)
        return state.best_name == name

    def _by_main(self, act: Callable[[], None]) -> None:
        """Let the main rank act. Where it cannot, all ranks say why and end, instead of waiting for it."""
        mistake = None
        if self.place.is_main:
            try:
                act()
            except UserError as error:
                mistake = str(error)
        if mistake := from_main(mistake, self.place):
            raise UserError(mistake)

    def _store(self, state: TrainState, metrics: dict[str, Any]) -> None:
        meta = {
            "stage": self.config.stage,
            "model": asdict(self.config.model),
            "size": self.config.data.size,
            "epoch": state.epoch,
            "step": state.step,
            "pack": self.digest,
            "world_size": self.place.world,
            "device": name_of(self.place.device),
            "metrics": metrics,
            "config": identity(self.config),
        }
        optimiser = self.optimiser.state_dict() if self.optimiser else {}
        saved = {"state": state.to_dict(), "optimiser": optimiser}
        keep = self.config.train.keep_checkpoints
        checkpoint.store(self.folder, self.model.state_dict(), saved, meta, keep, self._best(state))

    def _name_best(self, state: TrainState) -> None:
        """Write ``best.json``."""
        if best := self._best(state):
            write = partial(select.write_best, self.folder, best, self.config.train.best_metric, state.best_value)
            checkpoint.making_room(self.folder, best, write)

    def _best(self, state: TrainState) -> Path | None:
        return self.folder / checkpoint.FOLDER / state.best_name if state.best_name else None

    def restore(self) -> TrainState | None:
        """Load the newest checkpoint that verifies into model and optimiser; its state, or None where there is none.

        The main rank chooses, for all. Says which were skipped, and why. ``UserError`` for one of other data.
        """
        found: list[str] = []
        self._by_main(lambda: found.extend(self._newest()))
        state = None
        for name in from_main(found, self.place):
            path = self.folder / checkpoint.FOLDER / name
            self.copy.share(path, self.place)
            state = self._load(path)

        def write() -> None:
            best, epoch = (self._best(state), state.epoch) if state else (None, 0)
            checkpoint.making_room(self.folder, best, lambda: track.drop_rows_after(self.folder, epoch))
            if state:
                self._name_best(state)

        self._by_main(write)
        return state

    def _newest(self) -> list[str]:
        """The name of the newest checkpoint that verifies, here or in the copy; none where there is none."""
        self.copy.bring()
        path, skipped = checkpoint.newest(self.folder)
        for damaged, reason in skipped:
            self.say(f"skipped the checkpoint {damaged.name}: {reason}")
        return [path.name] if path else []

    def _load(self, path: Path) -> TrainState:
        meta = checkpoint.read_meta(path)
        if meta["pack"] != self.digest:
            raise UserError(f"{path} was trained on other data than this pack's: choose another run.name")
        saved = checkpoint.read_state(path)
        load_part(self.model, checkpoint.read_weights(path), str(path))
        if self.optimiser:
            self.optimiser.load_state_dict(saved["optimiser"])
        self.say(f"continuing from {path.name}")
        state = TrainState(**saved["state"])
        self._require_best(state)
        return state

    def _require_best(self, state: TrainState) -> None:
        """Where the best checkpoint was damaged, the best of the others takes its place."""
        best, metric = self._best(state), self.config.train.best_metric
        if best is None or not (reason := checkpoint.fault(best)):
            return
        found = checkpoint.best_of(self.folder, metric)
        state.best_name, state.best_value = (found[0].name, found[1]) if found else ("", float("inf"))
        self.say(f"the best checkpoint {best.name} is lost ({reason}); now it is {state.best_name or 'none'}")
