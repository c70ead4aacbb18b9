"""``nrh data coco-exp``: the composites, then what they are like, in lines and in a picture."""

from pathlib import Path

from nrh_dist.data.coco_exp import MANIFEST, Channels, Format, Method, Split
from nrh_dist.engine.progress import Say
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
) -> None:
    """``generate``, its summary, and ``out/distributions_<split>.png``, both from the manifest alone."""
    rejected = generate(images, annotations, out, count, seed, method, channels, format, split, workers, say)
    found = report.read(out / MANIFEST, split)
    for line in report.summary(found, rejected):
        say(line)
    picture = out / f"distributions_{split}.png"
    report.draw(report.panels(found), picture)
    say(f"{out}: {len(found.mse)} composites; their distributions are in {picture}")
