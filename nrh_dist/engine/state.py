"""What a training needs to go on exactly where it was, and nothing else."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class TrainState:
    """Position and running sums. Random draws need no state: each is a function of seed, epoch, step and sample.

    ``epoch`` counts finished epochs, ``epoch_step`` the steps done in the epoch under way, ``step`` all steps.
    ``loss_sum`` (over ``loss_count`` images of this epoch, all ranks) gives train/loss. ``best_value`` is the lowest
    value of the best metric so far, ``best_name`` its checkpoint's folder name. ``seconds`` is training time so far.
    ``skipped_steps`` were bad, the last ``bad_in_a_row`` of them at a stretch; ``rollbacks`` were made because of them.
    """

    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    best_value: float = float("inf")
    best_name: str = ""
    seconds: float = 0.0
    skipped_steps: int = 0
    bad_in_a_row: int = 0
    rollbacks: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for ``training_state.pt``."""
        return asdict(self)
