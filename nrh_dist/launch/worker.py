"""What every worker of a training does, whoever started it: the loop, a log, and a note of a user's mistake."""

from contextlib import nullcontext
from pathlib import Path

from nrh_dist.config import Config
from nrh_dist.engine import rundir
from nrh_dist.engine.dist import Place
from nrh_dist.engine.files import write_text
from nrh_dist.engine.fit import Report
from nrh_dist.engine.notice import Ask
from nrh_dist.engine.run import run
from nrh_dist.errors import UserError

LOG = "train.log"
MISTAKE = ".mistake"


def work(config: Config, pack: Path, folder: Path, place: Place, report: Report, asked: Ask) -> None:
    """Train as one of the workers of the run in ``folder``. A user's mistake is noted there, and ends all ranks.

    To return it would leave the others waiting for this one, where it is this one's alone.
    """
    try:
        with (folder / LOG).open("a", buffering=1) as log:

            def say(line: str) -> None:
                log.write(line + "\n")

            with rundir.writing(folder, say) if place.is_main else nullcontext():
                run(config, pack, place, report, say, asked)
    except UserError as error:
        write_text(folder / MISTAKE, str(error))
        raise


def mistake_of(folder: Path) -> UserError | None:
    """What the user can mend, as a worker noted it; the note is taken away."""
    note = folder / MISTAKE
    mistake = UserError(note.read_text(encoding="utf-8")) if note.exists() else None
    note.unlink(missing_ok=True)
    return mistake
