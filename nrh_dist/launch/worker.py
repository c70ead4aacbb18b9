"""What every worker of a training does, whoever started it: the loop, and a log."""

from contextlib import nullcontext
from pathlib import Path

from nrh_dist.config import Config
from nrh_dist.engine import rundir
from nrh_dist.engine.dist import Place
from nrh_dist.engine.fit import Report
from nrh_dist.engine.notice import Ask
from nrh_dist.engine.progress import Say
from nrh_dist.engine.run import run

LOG = "train.log"


def work(config: Config, pack: Path, folder: Path, place: Place, report: Report, asked: Ask, tell: Say) -> None:
    """Train as one of the workers of the run in ``folder``; each line of its log there is told as well."""
    with (folder / LOG).open("a", buffering=1) as log:

        def say(line: str) -> None:
            log.write(line + "\n")
            tell(line)

        with rundir.writing(folder, say) if place.is_main else nullcontext():
            run(config, pack, place, report, say, asked)
