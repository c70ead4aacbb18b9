"""The workers of one trial as processes of its own, where a single machine holds them all.

They start in a few seconds, where Ray Train takes twenty, and need none of its helpers. What dies ends the trial, which
Tune starts again: then it goes on from its checkpoint.
"""

import os
import signal
import socket
from functools import partial
from pathlib import Path

import torch

from nrh_dist.config import Config
from nrh_dist.engine.dist import torchrun_place
from nrh_dist.engine.files import write_text
from nrh_dist.engine.notice import nothing
from nrh_dist.errors import UserError
from nrh_dist.launch.telling import tell_and_wait
from nrh_dist.launch.worker import work

MISTAKE = ".mistake"  # what a worker found that the user can mend: torch hands on a traceback only


def spawn_workers(config: Config, pack: Path, folder: Path, cpus: int, gpus: float) -> None:
    """Run the loop by ``scale.workers`` processes with ``cpus`` and ``gpus`` each, until the last epoch.

    They end when this process does. ``UserError`` for what a worker found that the user can mend; whatever else ends
    one of them is raised by torch as it is.
    """
    from torch.multiprocessing.spawn import ProcessException, start_processes

    workers = config.scale.workers
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = (os.getpid(), workers, port, cpus, gpus, config, str(pack), str(folder))
    group = start_processes(_worker, arguments, workers, join=False, start_method="spawn")
    try:
        while not group.join():
            pass
    except ProcessException:
        if mistake := _mistake_of(folder):
            raise mistake from None
        raise


def _mistake_of(folder: Path) -> UserError | None:
    """As a worker noted it; the note is taken away."""
    note = folder / MISTAKE
    mistake = UserError(note.read_text(encoding="utf-8")) if note.exists() else None
    note.unlink(missing_ok=True)
    return mistake


def _worker(
    rank: int, parent: int, workers: int, port: int, cpus: int, gpus: float, config: Config, pack: str, folder: str
) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # torch's, at the parent's end; Ray blocks it
    if os.getppid() != parent:  # it ended before torch asked for the signal
        os._exit(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(workers), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(cpus)
    place = torchrun_place(gpus)
    report = partial(tell_and_wait, Path(folder)) if place.is_main else lambda row: None
    try:
        work(config, Path(pack), Path(folder), place, report, nothing, lambda line: None, settled=True)
    except UserError as error:
        write_text(Path(folder) / MISTAKE, str(error))
        raise
