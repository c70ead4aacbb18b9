"""The folder of a run: claimed by one process at a time, bound to one configuration."""

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nrh_dist import config as configuration
from nrh_dist.engine import checkpoint, copied, notice, select
from nrh_dist.engine.files import write_text
from nrh_dist.engine.lock import locked
from nrh_dist.engine.progress import Say
from nrh_dist.engine.storage import Storage
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
def claimed(config: Config, say: Say = print) -> Iterator[Path]:
    """Lock the run's folder and write its ``config.yaml`` before work starts; yields the folder.

    With ``storage``, the run's name is bound there too, and what its copy has and the folder lacks is fetched.
    ``UserError`` if the folder is in use, or it or the copy belongs to another configuration, naming the keys that
    differ; and, before anything is made, if the storage does not answer.
    """
    folder, copy = configuration.run_dir(config), copied.copy_of(config)
    _require_same(folder / CONFIG, config, folder)
    if copy:
        _bind(copy, config)
    with locked(folder):
        notice.forget(folder)
        if copy:
            copied.bring(copy, folder, say)
        _require_same(folder / CONFIG, config, folder)
        if not (folder / CONFIG).exists():
            write_text(folder / CONFIG, configuration.dump(config))
        yield folder


def _bind(copy: Storage, config: Config) -> None:
    """Let the copy belong to this configuration, unless it belongs to another one."""
    content = copy.read(CONFIG)
    if content is None:
        copy.put(configuration.dump(config).encode(), CONFIG)
        return
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / CONFIG
        written.write_bytes(content)
        _require_same(written, config, copy)


def _require_same(written: Path, config: Config, owner: object) -> None:
    if written.exists() and (changed := configuration.differing_keys(configuration.load(written), config)):
        raise UserError(f"{owner} was made with another configuration ({'; '.join(changed)}): choose another run.name")


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
