"""A command of the bench: in a process and a Ray of its own, on CPUs, with nothing sent anywhere."""

import os
import subprocess
from pathlib import Path

from nrh_dist.errors import UserError
from nrh_dist.workflows.measure import ONE_THREAD


def run(command: list[str], cache: Path) -> None:
    """Run it to its end, with one thread a worker and its cache in ``cache``.

    ``UserError`` with the last line of a command that failed.
    """
    kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    own = {"CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "disabled", "NRH_CACHE": str(cache)}
    done = subprocess.run(command, env=kept | ONE_THREAD | own, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise UserError(f"a command of the bench failed and said: {said}")
