"""The training loop. It knows no Ray: a launcher gives it a place among its peers and a function to report to.

Two workers give what one gives, to rounding: the order of samples is one global order (data/feed.py), the loss of a
batch is the sum over all ranks divided by the global batch size, and BatchNorm is synchronised.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nrh_dist.config import Config, identity
from nrh_dist.data.feed import epoch_order, gather, shard, step_rows, steps_per_epoch
from nrh_dist.data.pack import Pack
from nrh_dist.engine import checkpoint, select, track
from nrh_dist.engine.dist import Place, sum_over_ranks, synchronise_batchnorm
from nrh_dist.engine.progress import Progress, Say
from nrh_dist.engine.state import TrainState
from nrh_dist.engine.tasks import Task
from nrh_dist.errors import UserError

Report = Callable[[dict[str, Any]], None]


class Fit:
    """One training run: ``model`` learns ``task`` from the ``train_rows`` of ``pack``, judged on its ``val_rows``.

    ``report`` receives the row of each finished epoch on every rank (Ray's barrier needs all of them). A model without
    a trainable part is validated and saved once, as epoch ``train.epochs``.
    """

    def __init__(
        self,
        config: Config,
        model: nn.Module,
        task: Task,
        pack: Pack,
        train_rows: np.ndarray,
        val_rows: np.ndarray,
        folder: Path,
        place: Place,
        report: Report,
        say: Say,
    ) -> None:
        self.config, self.task, self.pack, self.folder, self.place = config, task, pack, folder, place
        self.train_rows, self.val_rows, self.report = train_rows, val_rows, report
        self.say = say if place.is_main else _mute
        self.model = model.to(place.device)
        self.state = TrainState()
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.is_trainable = bool(trainable)
        self.learner: nn.Module = self.model
        if self.is_trainable:
            self.optimiser = torch.optim.Adam(trainable, lr=config.optim.lr, eps=config.optim.eps)
            if place.world > 1:
                synchronise_batchnorm(self.model)
                self.learner = DistributedDataParallel(self.model, forward_sync_buffers=False)

    def run(self) -> dict[str, Any]:
        """Train from the newest verified checkpoint to the last epoch; returns the last row.

        Raises ``UserError`` when the loss stops being finite; no checkpoint of such weights is written.
        """
        self._resume()
        tracker = track.open_tracker(self.config, self.folder) if self.place.is_main else track.Nothing()
        progress = Progress((self.config.train.epochs - self.state.epoch) * len(self.train_rows), self.say)
        row: dict[str, Any] = {}
        try:
            while self.state.epoch < self.config.train.epochs:
                row = self._epoch(progress)
                tracker.log(row)
                self.report(row)
        finally:
            tracker.finish()
        return row

    def _epoch(self, progress: Progress) -> dict[str, Any]:
        started = time.monotonic()
        images = 0
        if self.is_trainable:
            images = self._train_epoch(progress)
        else:
            self.say("nothing in this model learns: it is validated and saved as it is")
            self.state.epoch = self.config.train.epochs - 1
        trained = time.monotonic() - started
        metrics = self._validate()
        self.state.epoch += 1
        self.state.seconds += time.monotonic() - started
        row = {
            "epoch": self.state.epoch,
            "step": self.state.step,
            **({"train/loss": self.state.loss_sum / self.state.loss_count} if self.state.loss_count else {}),
            **metrics,
            "lr": self._learning_rate(),
            "images_per_s": images / trained if trained > 0 else 0.0,
            "world_size": self.place.world,
            "time_s": self.state.seconds,
        }
        self._require_finite(row)
        self._finish_epoch(row)
        return row

    def _train_epoch(self, progress: Progress) -> int:
        """Train to the end of the epoch; returns how many images all ranks saw in it since the start or resume."""
        state, train = self.state, self.config.train
        order = epoch_order(self.train_rows, self.config.seed, state.epoch)
        steps = steps_per_epoch(len(order), train.batch_size)
        self.learner.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        own_loss = torch.zeros((), dtype=torch.float64, device=self.place.device)
        seen = counted = 0
        while state.epoch_step < steps:
            global_size = min(train.batch_size, len(order) - state.epoch_step * train.batch_size)
            rows = step_rows(order, state.epoch_step, train.batch_size, self.place.rank, self.place.world)
            own_loss += self._step(rows, global_size)
            state.epoch_step += 1
            state.step += 1
            seen += global_size
            counted += global_size
            progress.add(global_size, f"epoch {state.epoch + 1} of {train.epochs}, step {state.step}")
            if state.step % train.checkpoint_steps == 0 and state.epoch_step < steps:
                self._add_losses(own_loss, counted)
                own_loss.zero_()
                counted = 0
                self._save({})
        self._add_losses(own_loss, counted)
        state.epoch_step = 0
        return seen

    def _step(self, rows: np.ndarray, global_size: int) -> Tensor:
        """One optimiser step on this rank's ``rows``; returns the sum of their losses, detached."""
        seed_step(self.config.seed, self.state.step, self.place.rank)
        losses = self.task.losses(self.learner, gather(self.pack, rows, self.place.device), self.state.epoch)
        self.optimiser.zero_grad(set_to_none=True)
        # DDP averages gradients over ranks; times world / global_size makes that the mean over the global batch.
        (losses.sum() * (self.place.world / global_size)).backward()
        self.optimiser.step()
        return losses.detach().double().sum()

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Means over all validation images, each scored by exactly one rank."""
        self.model.eval()
        own = shard(self.val_rows, self.place.rank, self.place.world)
        names = self.task.metrics
        sums = torch.zeros(len(names), dtype=torch.float64, device=self.place.device)
        size = self.config.train.batch_size
        for start in range(0, len(own), size):
            values = self.task.evaluate(self.model, gather(self.pack, own[start : start + size], self.place.device))
            sums += torch.stack([values[name].double().sum() for name in names])
        means = sum_over_ranks(sums, self.place) / len(self.val_rows)
        return {f"val/{name}": value for name, value in zip(names, means.tolist(), strict=True)}

    def _add_losses(self, own_loss: Tensor, count: int) -> None:
        self.state.loss_sum += sum_over_ranks(own_loss, self.place).item()
        self.state.loss_count += count
        self._require_finite({"train/loss": self.state.loss_sum})

    def _finish_epoch(self, row: dict[str, Any]) -> None:
        """Row, checkpoint, best, in this order: a kill in between costs the epoch, never consistency."""
        state, metric = self.state, self.config.train.best_metric
        state.loss_sum, state.loss_count = 0.0, 0
        if row[metric] < state.best_value:
            state.best_value = row[metric]
            state.best_name = checkpoint.checkpoint_name(state.epoch, state.step)
        if self.place.is_main:
            track.append_row(self.folder, row)
        self._save(row)
        self._write_best()
        values = ", ".join(f"{key} {row[key]:.4g}" for key in ("train/loss", "val/loss", "val/mse") if key in row)
        mark = " (best)" if state.best_name == checkpoint.checkpoint_name(state.epoch, state.step) else ""
        self.say(
            f"epoch {state.epoch} of {self.config.train.epochs}: {values}, {row['images_per_s']:.1f} images/s{mark}"
        )

    def _write_best(self) -> None:
        if self.place.is_main and self.state.best_name:
            best = self.folder / "checkpoints" / self.state.best_name
            select.write_best(self.folder, best, self.config.train.best_metric, self.state.best_value)

    def _save(self, metrics: dict[str, Any]) -> None:
        if not self.place.is_main:
            return
        meta = {
            "stage": self.config.stage,
            "model": asdict(self.config.model),
            "size": self.config.data.size,
            "epoch": self.state.epoch,
            "step": self.state.step,
            "pack": self.pack.digest,
            "world_size": self.place.world,
            "metrics": metrics,
            "config": identity(self.config),
        }
        optimiser = self.optimiser.state_dict() if self.is_trainable else {}
        state = {"state": self.state.to_dict(), "optimiser": optimiser}
        checkpoint.save(self.folder / "checkpoints", self.model.state_dict(), state, meta)
        best = self.folder / "checkpoints" / self.state.best_name if self.state.best_name else None
        checkpoint.prune(self.folder, self.config.train.keep_checkpoints, best)

    def _resume(self) -> None:
        path, skipped = checkpoint.newest(self.folder)
        for damaged, reason in skipped:
            self.say(f"skipped the checkpoint {damaged.name}: {reason}")
        if path is not None:
            meta = checkpoint.read_meta(path)
            if meta["pack"] != self.pack.digest:
                raise UserError(f"{path} was trained on other data than {self.pack.root}: choose another run.name")
            saved = checkpoint.read_state(path)
            self.state = TrainState(**saved["state"])
            self.model.load_state_dict(checkpoint.read_weights(path))
            if self.is_trainable:
                self.optimiser.load_state_dict(saved["optimiser"])
            self.say(f"continuing from {path.name}")
        if self.place.is_main:
            track.drop_rows_after(self.folder, self.state.epoch)
        self._write_best()

    def _learning_rate(self) -> float:
        """The rate of the epoch under way: constant, or a cosine that restarts every ``restart_epochs`` epochs."""
        optim = self.config.optim
        if optim.schedule == "constant":
            return optim.lr
        position = (self.state.epoch % optim.restart_epochs) / optim.restart_epochs
        return optim.lr * 0.5 * (1 + math.cos(math.pi * position))

    def _require_finite(self, row: dict[str, Any]) -> None:
        for key, value in row.items():
            if not math.isfinite(value):
                where = f"epoch {self.state.epoch + 1}, step {self.state.step}"
                raise UserError(
                    f"{key} is {value} at {where} with optim.lr={self.config.optim.lr}: try a lower optim.lr"
                )


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one step: dropout is a function of (seed, step, rank), and a resume needs no saved state."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))


def _mute(_: str) -> None:
    pass
