"""The folder of a run: claimed by one process at a time, bound to one configuration."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nrh_dist import config as configuration
from nrh_dist.engine import checkpoint, notice, select
from nrh_dist.engine.files import write_text
from nrh_dist.engine.lock import locked
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.schema import Config

CONFIG = "config.yaml"


@contextmanager
def writing(folder: Path, say: Say) -> Iterator[None]:
    """Wait until no other process writes this run: workers may outlive a killed driver by seconds."""
    with (folder / ".writer").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"a worker of an earlier start still holds {lock.name}: waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def claimed(config: Config) -> Iterator[Path]:
    """Lock the run's folder and write its ``config.yaml`` before work starts; yields the folder.

    ``UserError`` if the folder is in use or belongs to another configuration, naming the keys that differ.
    """
    folder = configuration.run_dir(config)
    with locked(folder):
        notice.forget(folder)
        written = folder / CONFIG
        if written.exists():
            if changed := configuration.differing_keys(configuration.load(written), config):
                raise UserError(
                    f"{folder} was made with another configuration ({'; '.join(changed)}): choose another run.name"
                )
        else:
            write_text(written, configuration.dump(config))
        yield folder


def is_finished(folder: Path, config: Config) -> bool:
    """Whether the run's last epoch has a verified checkpoint, and the best one by then is named."""
    path = checkpoint.newest(folder).path
    if path is None or checkpoint.read_meta(path)["epoch"] < config.train.epochs:
        return False
    try:
        named = select.read_best(folder)
    except UserError:  # a damaged one: to be written anew
        return False
    return named is not None and named["checkpoint"].name == checkpoint.read_state(path)["state"]["best_name"]
