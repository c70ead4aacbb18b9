"""How often Ray Train's controller polls the workers of a training: a few times an epoch.

Each poll interrupts every worker, and where all CPUs train, each worker waits for the others: two polls a second cost
such a training several per cent. Yet polls alone tell of an epoch's row, of the end of the training and of a worker's
death, and a second row waits until the first was heard. So the pause is a share of what an epoch takes.
"""

import time
from pathlib import Path

from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupPollStatus

from nrh_dist.engine.notice import LOOK_SECONDS, is_asked_to_stop

SHARE = 1 / 3  # of the time between two rows
MOST_SECONDS = 5.0  # of a pause; to each, Ray adds its RAY_TRAIN_HEALTH_CHECK_INTERVAL_S


class RarePolls(WorkerGroupCallback):
    """Holds up the controller of the run in ``folder`` after polls without news, until the run is asked to stop."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._heard, self._between = folder, 0.0, 0.0

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        self._heard, self._between = time.monotonic(), 0.0

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        now = time.monotonic()
        since = now - self._heard
        if _has_news(worker_group_status):
            self._heard, self._between = now, since
            return
        end = now + min(SHARE * max(since, self._between), MOST_SECONDS)
        while (left := end - time.monotonic()) > 0 and not is_asked_to_stop(self._folder):
            time.sleep(min(left, LOOK_SECONDS))


def _has_news(polled: WorkerGroupPollStatus) -> bool:
    """Whether a worker has told of an epoch, of its end, of what ended it, or of a machine that is about to go."""
    return any(
        not one.running or one.error or one.training_report or one.preemption_info
        for one in polled.worker_statuses.values()
    )
