"""The training loop. It knows no Ray: a launcher gives it a place among its peers, and functions to report and ask.

Two workers give what one gives, to rounding: the order of samples is one global order (data/feed.py), the loss of a
batch is the sum over all ranks divided by the global batch size, and BatchNorm is synchronised. A run that is continued
gives what an uninterrupted one gives, bit for bit, on the same number of workers.
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nrh_dist.config import Config
from nrh_dist.data.feed import Batch, Feed
from nrh_dist.data.order import epoch_order, shard, step_rows, steps_per_epoch
from nrh_dist.data.pack import Pack
from nrh_dist.engine import speed
from nrh_dist.engine.dist import Place, gather_objects, sum_over_ranks
from nrh_dist.engine.files import write_json
from nrh_dist.engine.guard import BadStep, Decision, Guard, decide
from nrh_dist.engine.keeper import Keeper
from nrh_dist.engine.mirror import NOWHERE, Copy
from nrh_dist.engine.notice import Ask, Left, Notice, Stopped
from nrh_dist.engine.progress import Progress, Say
from nrh_dist.engine.state import TrainState
from nrh_dist.engine.tasks import Task
from nrh_dist.engine.watchdog import Beat
from nrh_dist.errors import UserError

BAD_STEPS = "bad-steps.json"
HEEDED_EVERY = 8  # batches of a validation, which costs a round trip between all ranks
NAMED = 4  # samples that a message names; the report names all

Report = Callable[[dict[str, Any]], None]


class _RolledBack(Exception):
    """The state is that of the newest checkpoint again: the loop starts from there."""


class Fit:
    """One training run: ``model`` learns ``task`` from the ``train_rows`` of ``pack``, judged on its ``val_rows``.

    ``report`` receives the row of each finished epoch on every rank (Ray's barrier needs all of them); ``notice`` is
    asked once a step; ``beat`` is called whenever the run got on; ``copy`` hears of each checkpoint. A model without a
    trainable part is validated and saved once, as epoch ``train.epochs``.
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
        notice: Ask,
        beat: Beat,
        copy: Copy = NOWHERE,
    ) -> None:
        self.config, self.task, self.pack, self.folder, self.place = config, task, pack, folder, place
        self.train_rows, self.val_rows = train_rows, val_rows
        self.report, self.say, self.notice, self.beat = report, say, notice, beat
        self.model = model
        self.state = TrainState()
        self.feed: Feed
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = speed.optimiser(trainable, config, place.device) if trainable else None
        self.learner = speed.learner(model, config, place, say)
        self.guard = Guard(model, place)
        self.bad_steps: list[BadStep] = []
        self.clock = time.monotonic()
        self.keeper = Keeper(config, folder, place, pack.digest, model, self.optimiser, say, copy)

    def restore(self) -> None:
        """Make model and position those of the newest checkpoint that verifies, if there is one."""
        self.state = self.keeper.restore() or self.state

    def run(self, feed: Feed) -> dict[str, Any]:
        """Train from where the run is to the last epoch; returns the last row.

        Raises ``UserError`` when losses or gradients stay not finite (no checkpoint of such weights is written), and
        ``Stopped`` or ``Left`` after a checkpoint where ``notice`` asks for the end.
        """
        self.feed = feed
        progress = Progress((self.config.train.epochs - self.state.epoch) * len(self.train_rows), self.say)
        row: dict[str, Any] = {}
        while self.state.epoch < self.config.train.epochs:
            try:
                row = self._epoch(progress)
            except _RolledBack:
                continue
            self.report(row)
            self.beat(until_slow=self.config.storage is not None)  # which the main rank may wait for
        return row

    def _epoch(self, progress: Progress) -> dict[str, Any]:
        state = self.state
        started = self.clock = time.monotonic()
        images = 0
        if self.optimiser:
            images = self._train_epoch(progress)
        else:
            self.say("nothing in this model learns: it is validated and saved as it is")
            state.epoch = self.config.train.epochs - 1
        trained = time.monotonic() - started
        metrics = self._validate()
        rate = self._learning_rate(max(state.epoch_step - 1, 0))  # of the last step
        state.epoch, state.epoch_step = state.epoch + 1, 0
        self._count_time()
        row = {
            "epoch": state.epoch,
            "step": state.step,
            **({"train/loss": state.loss_sum / state.loss_count} if state.loss_count else {}),
            **metrics,
            "lr": rate,
            "images_per_s": images / trained if trained > 0 else 0.0,
            "world_size": self.place.world,
            "skipped_steps": state.skipped_steps,
            "time_s": state.seconds,
        }
        self._require_finite(row)
        state.loss_sum, state.loss_count = 0.0, 0
        self.beat(until_slow=True)
        is_best = self.keeper.finish_epoch(state, row)
        self.beat(until_slow=True)
        values = ", ".join(f"{key} {row[key]:.4g}" for key in ("train/loss", "val/loss", "val/mse") if key in row)
        self.say(
            f"epoch {state.epoch} of {self.config.train.epochs}: {values}, {row['images_per_s']:.1f} images/s"
            + (" (best)" if is_best else "")
        )
        return row

    def _train_epoch(self, progress: Progress) -> int:
        """Train to the end of the epoch; returns how many images all ranks saw in it since the start or resume."""
        state, train = self.state, self.config.train
        assert self.optimiser
        order = epoch_order(self.train_rows, self.config.seed, state.epoch)
        steps = steps_per_epoch(len(order), train.batch_size)
        self.learner.train()
        parts = (
            step_rows(order, step, train.batch_size, self.place.rank, self.place.world)
            for step in range(state.epoch_step, steps)
        )
        seen = 0
        for batch in self.feed.batches(parts):
            global_size = min(train.batch_size, len(order) - state.epoch_step * train.batch_size)
            asked = self._step(batch, global_size)
            seen += global_size
            progress.add(global_size, f"epoch {state.epoch + 1} of {train.epochs}, step {state.step}")
            self.beat()
            # The end of an epoch has a checkpoint of its own, but after the validation.
            is_time = state.step % train.checkpoint_steps == 0 and state.epoch_step < steps
            is_due = is_time or asked is not Notice.NONE
            if is_due:
                self._save()
            if asked is not Notice.NONE:
                raise self._ended(asked)
            if seen == global_size:
                self._settle()
        return seen

    def _ended(self, asked: Notice) -> Stopped | Left:
        """How a run that saved a checkpoint ends before its time."""
        if asked is Notice.STOP:
            return Stopped(f"stopped at step {self.state.step}, as asked: the same command goes on")
        return Left(f"left at step {self.state.step}, before a machine of this run goes")

    def _save(self) -> None:
        if self.state.bad_in_a_row:  # weights that may be spoilt are nothing to go back to
            return
        self.beat(until_slow=True)
        self._count_time()
        self.keeper.save(self.state, {})
        self.beat()

    def _count_time(self) -> None:
        """Add what has passed since the last time to the training's time."""
        now = time.monotonic()
        self.state.seconds += now - self.clock
        self.clock = now

    def _settle(self) -> None:
        """Move the data to the device where they fit on all ranks: a rank that streams would wait for the others."""
        fits = self.feed.fits()
        if not all(gather_objects(fits, self.place)):
            return
        self.feed.make_resident(lambda: self.beat(until_slow=True))
        self.beat(until_slow=True)
        self.say(f"the data ({self.feed.nbytes / 1e9:.3g} GB) fit into the GPU's memory and stay there")

    def _step(self, batch: Batch, global_size: int) -> Notice:
        """One optimiser step on this rank's ``batch``; returns what is asked by any rank."""
        state = self.state
        assert self.optimiser
        seed_step(self.config.seed, state.step, self.place.rank)
        rate = self._learning_rate(state.epoch_step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.guard.remember()
        self.optimiser.zero_grad(set_to_none=True)
        losses = self.task.losses(self.learner, batch, state.epoch)
        # DDP averages gradients over ranks; times world / global_size makes that the mean over the global batch.
        (losses.sum() * (self.place.world / global_size)).backward()
        agreed = self.guard.consensus(losses, self.notice())
        decision = decide(agreed.is_finite, state, self.config.train)
        if decision is Decision.TAKE:
            self.optimiser.step()
            state.loss_sum += agreed.loss_sum
            state.loss_count += global_size
            state.bad_in_a_row = 0
        else:
            self._leave_out(batch, losses, decision)
        state.epoch_step += 1
        state.step += 1
        return agreed.notice

    def _leave_out(self, batch: Batch, losses: torch.Tensor, decision: Decision) -> None:
        """Skip a bad step on all ranks, go back to the newest checkpoint, or end the run with a report."""
        state, train = self.state, self.config.train
        self.guard.put_back()
        told = self.guard.describe(state, [self.pack.names[row] for row in batch.rows], losses.detach())
        self.bad_steps.append(told)
        self.say(f"step {told.step} was not finite and is skipped on all ranks: {_some(told)}")
        if decision is Decision.SKIP:
            state.skipped_steps += 1
            state.bad_in_a_row += 1
            return
        self.beat(until_slow=True)
        restored = self.keeper.restore() if decision is Decision.ROLL_BACK else None
        if restored is None:
            raise self._given_up(told)
        restored.rollbacks, restored.bad_in_a_row = state.rollbacks + 1, 0
        self.state = restored
        count = f"{restored.rollbacks} of {train.rollbacks}"
        self.say(f"{train.bad_steps} bad steps in a row: back to step {restored.step} ({count})")
        raise _RolledBack

    def _given_up(self, last: BadStep) -> UserError:
        path = self.folder / BAD_STEPS
        if self.place.is_main:
            rate = self.config.optim.lr
            steps = [vars(one) for one in self.bad_steps]
            told = {"schema": 1, "rollbacks": self.state.rollbacks, "optim.lr": rate, "bad_steps": steps}
            with suppress(OSError):  # a full disk: the message has the first names
                write_json(path, told)
        return UserError(
            f"loss or gradient was not finite in {self.config.train.bad_steps} steps in a row, the last at epoch "
            f"{last.epoch}, step {last.step}, with optim.lr={self.config.optim.lr} ({_some(last)}): try a lower "
            f"optim.lr, or look at the samples in {path}"
        )

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Means over all validation images, each scored by exactly one rank.

        ``Stopped`` or ``Left`` where any rank is asked to, with a checkpoint of an epoch that is still to be validated.
        """
        self.model.eval()
        own = shard(self.val_rows, self.place.rank, self.place.world)
        names = self.task.metrics
        sums = torch.zeros(len(names), dtype=torch.float64, device=self.place.device)
        size = self.config.train.batch_size
        batches = self.feed.batches(own[start : start + size] for start in range(0, len(own), size))
        for number in range(steps_per_epoch(len(shard(self.val_rows, 0, self.place.world)), size)):
            if number % HEEDED_EVERY == HEEDED_EVERY - 1:
                self._heed()
            if batch := next(batches, None):  # the last ranks may have one less
                values = self.task.evaluate(self.model, batch)
                sums += torch.stack([values[name].double().sum() for name in names])
            self.beat()
        means = sum_over_ranks(sums, self.place) / len(self.val_rows)
        return {f"val/{name}": value for name, value in zip(names, means.tolist(), strict=True)}

    def _heed(self) -> None:
        """Save, and end, where any rank is asked to. All ranks must call it."""
        asked = Notice(max(gather_objects(int(self.notice()), self.place)))
        if asked is Notice.NONE:
            return
        if self.optimiser:
            self._save()
        raise self._ended(asked)

    def _learning_rate(self, step: int) -> float:
        """The rate of ``step`` of the epoch under way.

        Constant, or a cosine that restarts every ``restart_epochs`` epochs (Loshchilov and Hutter, SGDR, 2017).
        """
        optim = self.config.optim
        if optim.schedule == "constant":
            return optim.lr
        epochs = self.state.epoch + step / steps_per_epoch(len(self.train_rows), self.config.train.batch_size)
        return optim.lr * 0.5 * (1 + math.cos(math.pi * (epochs % optim.restart_epochs) / optim.restart_epochs))

    def _require_finite(self, row: dict[str, Any]) -> None:
        for key, value in row.items():
            if not math.isfinite(value):
                where = f"epoch {self.state.epoch}, step {self.state.step}"
                raise UserError(
                    f"{key} is {value} at {where} with optim.lr={self.config.optim.lr}: try a lower optim.lr"
                )


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one step: dropout is a function of (seed, step, rank), and a resume needs no saved state."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))


def _some(bad: BadStep) -> str:
    """The samples to look at first: those whose own loss was not finite, else all of the batch."""
    names = bad.not_finite or bad.samples
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{'samples' if len(names) > 1 else 'sample'} {', '.join(names[:NAMED])}{more}"
