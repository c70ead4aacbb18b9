"""Steps that must not be taken: found on any rank, skipped on all, and what to do when they go on.

A step is bad where a loss or the gradient is not finite. One bad step is skipped: weights, optimiser and BatchNorm's
running statistics stay as they were. ``train.bad_steps`` in a row mean that the weights themselves are spoilt: the run
goes back to its newest checkpoint, which mends what happened to this machine's memory. It would repeat what lies in the
data or the learning rate, so after ``train.rollbacks`` times it stops, and says at which steps and samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nrh_dist.engine.dist import Place, gather_objects, sum_over_ranks
from nrh_dist.engine.notice import Notice
from nrh_dist.engine.state import TrainState
from nrh_dist.schema import Train


class Decision(Enum):
    """What a step ends in."""

    TAKE = auto()
    SKIP = auto()
    ROLL_BACK = auto()
    STOP = auto()


def decide(is_finite: bool, state: TrainState, train: Train) -> Decision:
    """The policy; ``state`` holds how many steps in a row were bad before this one, and the rollbacks so far."""
    if is_finite:
        return Decision.TAKE
    if state.bad_in_a_row + 1 < train.bad_steps:
        return Decision.SKIP
    return Decision.ROLL_BACK if state.rollbacks < train.rollbacks else Decision.STOP


class Consensus(NamedTuple):
    """What all ranks agree on after the backward pass of a step."""

    loss_sum: float  # of the global batch
    is_finite: bool
    notice: Notice


@dataclass(frozen=True)
class BadStep:
    """A bad step, with the names of its samples and of those whose own loss was not finite."""

    epoch: int
    step: int
    samples: list[str]
    not_finite: list[str]


class Guard:
    """Judges each step of ``model`` and undoes what the forward pass of a bad one left behind."""

    def __init__(self, model: nn.Module, place: Place) -> None:
        self.place = place
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
        buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        self._buffers = [[one for one in buffers if one.is_floating_point() is kind] for kind in (True, False)]
        self._before = [[one.clone() for one in kind] for kind in self._buffers]

    def remember(self) -> None:
        """To be called before the forward pass."""
        for before, now in zip(self._before, self._buffers, strict=True):
            if now:
                torch._foreach_copy_(before, now)

    def put_back(self) -> None:
        """BatchNorm's statistics as they were before the forward pass."""
        for before, now in zip(self._before, self._buffers, strict=True):
            if now:
                torch._foreach_copy_(now, before)

    def consensus(self, losses: Tensor, notice: Notice) -> Consensus:
        """One collective: the loss of the whole batch, whether all is finite, and the largest notice."""
        own = losses.detach().double().sum()
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        bad = ~(torch.isfinite(own) & torch.isfinite(norm))
        asked = [float(notice is Notice.LEAVE), float(notice is Notice.STOP)]
        values = torch.stack([own, bad.double(), *own.new_tensor(asked)])
        loss, not_finite, leave, stop = sum_over_ranks(values, self.place).tolist()
        asked_by_any = Notice.STOP if stop else Notice.LEAVE if leave else Notice.NONE
        return Consensus(loss, not not_finite, asked_by_any)

    def describe(self, state: TrainState, names: Sequence[str], losses: Tensor) -> BadStep:
        """The bad step under way, told by all ranks together; ``names`` are those of this rank's samples."""
        own = [name for name, one in zip(names, losses.tolist(), strict=True) if not -torch.inf < one < torch.inf]
        gathered: list[Any] = gather_objects((list(names), own), self.place)
        samples = [name for told, _ in gathered for name in told]
        return BadStep(state.epoch + 1, state.step + 1, samples, [name for _, told in gathered for name in told])
