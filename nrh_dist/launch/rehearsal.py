"""A sweep played through in no time: known learning curves under a real scheduler of Ray Tune, without Ray."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

Curve = Sequence[float]  # the metric after each epoch


def rehearse(
    scheduler: Any,
    metric: str,
    begin: Callable[[int], Curve | None],
    concurrent: int,
    end: Callable[[int, float], None] = lambda index, value: None,
) -> Iterator[tuple[int, int, float]]:
    """Yield (trial, epoch, value) in the order of time, ``concurrent`` trials at once, each epoch taking as long.

    ``begin`` gives the curve of the next trial, or None when there are no more; ``end`` is told the last value of one.
    ``scheduler`` must judge a trial by its own results only, as Ray's ASHA and median rule do.
    """
    from ray.tune.schedulers import TrialScheduler

    going: list[tuple[int, int]] = []  # (time of the next epoch's end, trial)
    curves: dict[int, Curve] = {}
    epochs: dict[int, int] = {}
    trials: dict[int, Any] = {}

    def start(now: int) -> None:
        index = len(curves)
        if (curve := begin(index)) is not None:
            curves[index], epochs[index] = curve, 0
            trials[index] = SimpleNamespace(trial_id=str(index), status="RUNNING", is_finished=lambda: False)
            scheduler.on_trial_add(None, trials[index])
            heapq.heappush(going, (now + 1, index))

    for _ in range(concurrent):
        start(0)
    while going:
        now, index = heapq.heappop(going)
        value = curves[index][epochs[index]]
        epochs[index] += 1
        yield index, epochs[index], value
        result = {"epoch": epochs[index], metric: value, "training_iteration": epochs[index]}
        decision = scheduler.on_trial_result(None, trials[index], result)
        if decision == TrialScheduler.CONTINUE and epochs[index] < len(curves[index]):
            heapq.heappush(going, (now + 1, index))
            continue
        scheduler.on_trial_complete(None, trials[index], result)
        end(index, value)
        start(now)
