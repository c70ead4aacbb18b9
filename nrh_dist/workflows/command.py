"""A command of the bench: in a process and a Ray of its own, on CPUs, with nothing sent anywhere."""

import os
import subprocess
from pathlib import Path

from nrh_dist.errors import UserError
from nrh_dist.workflows.measure import ONE_THREAD


def environment(cache: Path) -> dict[str, str]:
    """One thread a worker, and the cache in ``cache``."""
    kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    own = {"CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "disabled", "NRH_CACHE": str(cache)}
    return kept | ONE_THREAD | own


def run(command: list[str], cache: Path) -> None:
    """Run it to its end. ``UserError`` with the last line of a command that failed."""
    done = subprocess.run(command, env=environment(cache), capture_output=True, text=True)
    if done.returncode:
        raise failed(done.stderr.strip() or done.stdout)


def failed(said: str) -> UserError:
    """The error of a command that said this before it failed."""
    return UserError(f"a command of the bench failed and said: {(said.strip() or 'nothing').splitlines()[-1]}")
