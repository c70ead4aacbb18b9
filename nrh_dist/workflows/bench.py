"""``nrh bench``: how fast the parts are, each as a ratio against a peer that runs in turns with it.

    nrh bench loader --data iharmony4      two minutes on two cores; at least 200 times a loader that decodes
    nrh bench step                         ten minutes on two cores, of which compiling takes most
    nrh bench ray                          half an hour on two cores
    nrh bench evaluate                     four minutes on two cores
    nrh bench generate --images train2017 --annotations instances_train2017.json     ten minutes on two cores
    nrh bench sweep                        a quarter of an hour on two cores the first time; its trainings are kept
    nrh bench trials                       four minutes on two cores
    nrh bench harmonise                    one minute on two cores

A further bench is a function in ``BENCHES``, which imports its file by itself: ``step`` must run where there is little
more than PyTorch. What benches share is in ``measure.py``.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.workflows import measure
from nrh_dist.workflows.measure import Figure


@dataclass(frozen=True)
class Input:
    """What a bench works on; whatever is None is embedded sample data.

    ``images`` with their COCO ``annotations`` and the ``count`` of pairs are for ``generate``, ``data``, a folder of
    iHarmony4 layout, is for ``loader``.
    """

    images: Path | None = None
    annotations: Path | None = None
    count: int = 1000
    data: Path | None = None

    def command(self, bench: str) -> str:
        """The command that measures ``bench`` with this input; folders and files by their last name."""
        words = ["nrh", "bench", bench]
        for one in fields(self):
            value = getattr(self, one.name)
            if value != one.default and one.name in USES[bench]:
                words += [f"--{one.name}", value.resolve().name if isinstance(value, Path) else str(value)]
        return shlex.join(words)


def _loader(given: Input, say: Say) -> list[Figure]:
    from nrh_dist.workflows import bench_loader

    return bench_loader.bench(given.data, say)


def _step(given: Input, say: Say) -> list[Figure]:
    from nrh_dist.workflows import bench_step

    return bench_step.bench(say)


def _ray(given: Input, say: Say) -> list[Figure]:
    from nrh_dist.workflows import bench_ray

    return bench_ray.bench(say)


def _evaluate(given: Input, say: Say) -> list[Figure]:
    from nrh_dist.workflows import bench_evaluate

    return bench_evaluate.bench(say)


def _generate(given: Input, say: Say) -> list[Figure]:
    from nrh_dist.workflows import bench_generate

    return bench_generate.bench(given.images, given.annotations, given.count, say)


def _sweep(given: Input, say: Say) -> list[Figure]:
    from nrh_dist.workflows import bench_sweep

    return bench_sweep.bench(say)


def _trials(given: Input, say: Say) -> list[Figure]:
    from nrh_dist.workflows import bench_trials

    return bench_trials.bench(say)


def _harmonise(given: Input, say: Say) -> list[Figure]:
    from nrh_dist.workflows import bench_harmonise

    return bench_harmonise.bench(say)


BENCHES: dict[str, Callable[[Input, Say], list[Figure]]] = {
    "loader": _loader,
    "step": _step,
    "ray": _ray,
    "evaluate": _evaluate,
    "generate": _generate,
    "sweep": _sweep,
    "trials": _trials,
    "harmonise": _harmonise,
}
USES = {
    "loader": ("data",),
    "step": (),
    "ray": (),
    "evaluate": (),
    "generate": ("images", "annotations", "count"),
    "sweep": (),
    "trials": (),
    "harmonise": (),
}  # of Input
ABOUT = {
    "loader": "the feed from a pack, against decoding files and against webdataset",
    "step": "a training step, against the same models in plain PyTorch",
    "ray": "training by one worker and by two on Ray, against torchrun",
    "evaluate": "errors against scikit-image, models together against one by one, two actors against one",
    "generate": "the COCO-Exp generator, against the naive route",
    "sweep": "the epochs that a search needs, against a full random search",
    "trials": "two workers of each trial beside it, against a TorchTrainer for each",
    "harmonise": "a large photo, against decoding and encoding it; the start, against onnxruntime's",
}


def run(name: str | None, given: Input, out: Path | None, say: Say) -> list[Figure]:
    """Run the bench ``name`` (or ``all``), print its figures and put them into ``out``; without a name, list all.

    Each bench is written as soon as it is measured. ``UserError``: no such bench, images without annotations, an option
    of another bench, a library of the peer that is missing, an ``out`` that is something else.
    """
    if name is None:
        for one, about in ABOUT.items():
            say(f"nrh bench {one}: {about}")
        say("nrh bench all: all of them")
        return []
    if name not in (*BENCHES, "all"):
        raise UserError(f"no bench '{name}': choose from {', '.join([*BENCHES, 'all'])}")
    if (given.images is None) != (given.annotations is None):
        raise UserError("--images and --annotations belong together: give both, or neither for sample data")
    chosen = [*BENCHES] if name == "all" else [name]
    _refuse_unused(given, chosen)
    out = out or measure.default_file()
    measure.read(out)
    figures = []
    for one in chosen:
        found = BENCHES[one](given, say)
        measure.write(one, given.command(one), found, out, say)
        figures += found
    return figures


def _refuse_unused(given: Input, chosen: list[str]) -> None:
    used = {name for bench in chosen for name in USES[bench]}
    for one in fields(given):
        if getattr(given, one.name) != one.default and one.name not in used:
            others = [bench for bench, names in USES.items() if one.name in names]
            raise UserError(f"--{one.name} is for nrh bench {', '.join(others)}: leave it out for {chosen[0]}")
