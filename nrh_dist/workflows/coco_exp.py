"""``nrh data coco-exp``: the composites, then what they are like, in lines and in a picture."""

from pathlib import Path

from nrh_dist.data.coco_exp import MANIFEST, Channels, Format, Method, Split
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.launch.generate import generate
from nrh_dist.report import coco_exp as report


def make(
    images: Path,
    annotations: Path,
    out: Path,
    count: int,
    seed: int,
    method: Method = "meanstd",
    channels: Channels = "l",
    format: Format = "jpeg",
    split: Split = "test",
    workers: int = 1,
    say: Say = print,
    val_fraction: float = 0.0,
) -> None:
    """``generate``, its summary, and ``out/distributions_<split>.png``, both from the manifest alone.

    Raises what ``generate`` raises, and ``UserError`` if the picture cannot be written.
    """
    rejected = generate(
        images, annotations, out, count, seed, method, channels, format, split, workers, say, val_fraction
    )
    found = report.read(out / MANIFEST, split)
    for line in report.summary(found, rejected):
        say(line)
    picture = out / f"distributions_{split}.png"
    _draw(found, picture)
    say(f"{out}: {len(found.mse)} composites; their distributions are in {picture}")


def _draw(found: report.Composites, picture: Path) -> None:
    temporary = picture.with_name(f".{picture.stem}.partial.png")
    try:
        report.draw(report.panels(found), temporary)
        temporary.replace(picture)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        why = error.strerror or error
        raise UserError(f"cannot write {picture}: {why}; mend that and call again; the composites are done") from None
