"""``nrh bench``: how fast the parts are, each as a ratio against a peer that runs in turns with it.

    nrh bench generate --images train2017 --annotations instances_train2017.json     some ten minutes on two cores

A further bench is a function in ``BENCHES``; what benches share is in ``measure.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.workflows import bench_generate, measure
from nrh_dist.workflows.measure import Figure


@dataclass(frozen=True)
class Input:
    """What a bench works on: photos and their annotations, or None for embedded sample data; ``count`` pairs."""

    images: Path | None
    annotations: Path | None
    count: int


def _generate(given: Input, say: Say) -> list[Figure]:
    return bench_generate.bench(given.images, given.annotations, given.count, say)


BENCHES: dict[str, Callable[[Input, Say], list[Figure]]] = {"generate": _generate}


def run(name: str, given: Input, out: Path | None, say: Say) -> list[Figure]:
    """Run the bench ``name`` (or ``all``), print its figures and write them to ``out``.

    ``UserError``: no such bench, images without annotations, a library of the peer that is missing.
    """
    if name not in (*BENCHES, "all"):
        raise UserError(f"no bench '{name}': choose from {', '.join([*BENCHES, 'all'])}")
    if (given.images is None) != (given.annotations is None):
        raise UserError("--images and --annotations belong together: give both, or neither for sample data")
    out = out or measure.default_file()
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: give a file name")
    figures = [figure for one in (BENCHES if name == "all" else [name]) for figure in BENCHES[one](given, say)]
    measure.write(figures, out, say)
    return figures
