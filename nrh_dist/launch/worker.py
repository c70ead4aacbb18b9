"""What every worker of a training does, whoever started it: the loop, and a log."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from nrh_dist.config import Config
from nrh_dist.engine import rundir
from nrh_dist.engine.dist import Place
from nrh_dist.engine.fit import Report
from nrh_dist.engine.notice import Ask
from nrh_dist.engine.progress import Say
from nrh_dist.engine.run import run

LOG = "train.log"


def work(
    config: Config,
    pack: Path,
    folder: Path,
    place: Place,
    report: Report,
    asked: Ask,
    tell: Say,
    settled: bool = False,
) -> None:
    """Train as one of the workers of the run in ``folder``; each line of its log there is told as well.

    ``settled``: as for ``run``.
    """
    with logged(folder) as log:

        def say(line: str) -> None:
            log(line)
            tell(line)

        with rundir.writing(folder, say) if place.is_main else nullcontext():
            run(config, pack, place, report, say, asked, settled)


@contextmanager
def logged(folder: Path) -> Iterator[Say]:
    """Lines go to the log in ``folder``. Where a full disk takes none, a line is lost and not the training."""

    def say(line: str) -> None:
        with suppress(OSError):
            log.write(f"{line}\n".encode())

    with (folder / LOG).open("ab", buffering=0) as log:  # nothing is left to be written when it is closed
        yield say
