"""``nrh train`` or ``nrh pretrain`` whose workers record their steps: python ray_driver.py key=value ..."""

import os
import sys
from pathlib import Path
from typing import Any

from nrh_dist import config as configuration
from nrh_dist.errors import UserError
from nrh_dist.launch import train


def recording_worker(loop_config: dict[Any, Any]) -> Any:
    """A Ray Train worker as it is, with a record; runs in the worker's process."""
    import ray.train
    import recorded
    import torch

    from nrh_dist.engine.fit import Fit

    torch.set_num_threads(1)
    config = configuration.from_dict(loop_config["config"])
    notes = Path(config.run.root).parent / "notes" / str(config.run.name)
    recorder = recorded.Recorder(notes, ray.train.get_context().get_world_rank())
    run = Fit.run

    def noted(fit: Fit, feed: Any) -> Any:
        recorder.write(start=os.getpid())  # the run's folder is this worker's by now: none of an earlier start writes
        return run(fit, feed)

    Fit.run = noted  # type: ignore[method-assign]
    recorder.record_steps()
    return REAL(loop_config)


REAL = train._worker

if __name__ == "__main__":
    from ray_driver import recording_worker as importable  # by name, for the workers

    train._worker = importable
    try:
        train.train(configuration.load(None, sys.argv[1:]), lambda line: print(line, flush=True))
    except UserError as error:
        sys.exit(f"nrh: {error}")
