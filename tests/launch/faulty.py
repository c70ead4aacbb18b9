"""Workers that go wrong in the middle of a training. Tests put them in the place of nrh_dist.launch.train._worker."""

import time
from pathlib import Path

from nrh_dist.engine.fit import Fit
from nrh_dist.launch import train, trial

REAL_WORKER, REAL_TRIAL, REAL_STEP = train._worker, trial.train_trial, Fit._step


def slow(loop_config):
    """A worker whose steps last a tenth of a second, so that a test meets it in mid-epoch.

    ``steps-before`` in the run's folder holds how many steps the starts before the present one took.
    """
    started = []

    def step(self, *arguments):
        reached, before = Path(self.folder) / "steps-reached", Path(self.folder) / "steps-before"
        if self.place.is_main:
            if not started and reached.exists():
                before.write_text(reached.read_text())
            started.append(True)
        time.sleep(0.1)
        asked = REAL_STEP(self, *arguments)
        if self.place.is_main:
            reached.write_text(str(self.state.step))
        return asked

    return _run_with(step, loop_config)


def elsewhere(loop_config):
    """A worker of a machine that shares no disk with the driver: its folders lie elsewhere."""
    folder = Path(loop_config["folder"])
    root = folder.parent / "elsewhere"
    run = {**loop_config["config"]["run"], "root": str(root)}
    moved = {**loop_config, "folder": str(root / folder.name), "config": {**loop_config["config"], "run": run}}
    return REAL_WORKER(moved)


def train_trial_elsewhere(parameters, searched, pack, home, together, relay):
    """A trial on a machine that shares no disk with the driver: relative paths are of another folder."""
    REAL_TRIAL(parameters, searched, pack, f"{home}/elsewhere", together, relay)


def stands_still_once(loop_config):
    """A worker of which rank 1, once in the run's life, never ends a step of its second epoch."""

    def step(self, *arguments):
        marker = Path(self.folder) / "stood-still"
        if self.place.rank == 1 and self.state.epoch == 1 and not marker.exists():
            marker.touch()
            time.sleep(1e6)
        return REAL_STEP(self, *arguments)

    return _run_with(step, loop_config)


def _run_with(step, loop_config):
    Fit._step = step
    return REAL_WORKER(loop_config)
