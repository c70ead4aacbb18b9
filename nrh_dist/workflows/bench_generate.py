"""The COCO-Exp generator against its peers: the naive route, independent processes, and pycocotools' reader."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory
from typing import Any

from nrh_dist.data import coco, coco_exp
from nrh_dist.data.coco_exp import Format, Maker, Settings, work_order
from nrh_dist.data.pairs import Pair, eligible, plan
from nrh_dist.data.synthetic import write_sample
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.launch import session
from nrh_dist.launch.candidates import Log
from nrh_dist.launch.makers import chunks, makers
from nrh_dist.workflows import made_up, naive
from nrh_dist.workflows.measure import Figure, figure, interleaved, peak_memory

SPEED_ROUNDS, SCALING_ROUNDS, LOADING_ROUNDS = 10, 7, 3
FEWEST_PAIRS = 2 * SPEED_ROUNDS  # half of them are done once more, with PNG
SPEED_TARGET, SCALING_TARGET, LOADING_TARGET = 20.0, 0.9, 5.0
WORKERS = 2
PAPER_COUNT = 68_128  # composites of the paper's COCO-Exp
MEMORY, MEMORY_NEEDED = Path("/dev/shm"), 2 << 30  # bytes
SETTINGS = Settings(seed=0)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def bench(images: Path | None, annotations: Path | None, count: int, say: Say) -> list[Figure]:
    """Speed, scaling, and loading with its memory; of ``count`` pairs of these photos, or of sample data.

    Speed: ``count`` pairs that are not rejected, or as many as there are. Scaling: ``count`` pairs a round, or fewer
    where there are not so many.
    """
    naive.require_peer()
    target: float | None = SPEED_TARGET
    with TemporaryDirectory(prefix="nrh-bench-") as temporary, one_thread():
        folder = Path(temporary)
        if images is None or annotations is None:
            say("no --images: sample data of 160x128 pixels, where files cost more than pixels: no target for speed")
            write_sample(folder / "sample", say=say)
            images = folder / "sample/coco/train2017"
            annotations = folder / "sample/coco/annotations/instances_train2017.json"
            target = None
        pairs = _pairs(images, annotations, count)
        figures = _speed(pairs, count, annotations, target, say)
        say(f"scaling: {WORKERS} Ray workers and {WORKERS} plain processes, in turns")
        scaling, worker = _scaling(pairs, annotations, count, folder, say)
        say("loading: a made-up file of the size of instances_train2017.json, by msgspec and by pycocotools, in turns")
        return [*figures, scaling, *_loading(folder, worker, say)]


def _pairs(images: Path, annotations: Path, count: int) -> list[Pair]:
    """All pairs that the bench needs, from the plan of seed 0."""
    objects, _ = eligible(coco.load(annotations), images)
    pairs = list(islice(plan(objects, SETTINGS.seed), count * (SCALING_ROUNDS + 1)))
    _check_number(pairs, annotations)
    missing = {str(pair.target.photo) for pair in pairs if not pair.target.photo.exists()}
    if missing:
        raise UserError(
            f"{len(missing)} photos are missing, first {min(missing)}: give the folder of these annotations"
        )
    return pairs


def _check_number(pairs: Sequence[Pair], annotations: Path) -> None:
    if len(pairs) < FEWEST_PAIRS:
        raise UserError(
            f"{annotations} gives at most {len(pairs)} usable pairs: too few to measure anything, which takes "
            f"{FEWEST_PAIRS}; give annotations of more photos"
        )


def _speed(pairs: Sequence[Pair], count: int, annotations: Path, target: float | None, say: Say) -> list[Figure]:
    """CPU seconds of one thread: what others do on the machine at the same time is not counted.

    Both write to memory where they can: the time in which a disk finds room for a file depends on what was there.
    """
    memory = _memory()
    with TemporaryDirectory(prefix="nrh-bench-", dir=memory) as folder, _process() as child:
        chosen = child.submit(usable, pairs, count, Path(folder)).result()
        _check_number(chosen, annotations)
        say(f"speed: {len(chosen)} pairs by the generator and by the naive route, in turns")
        ours = child.submit(speed_ratios, chosen, annotations, Path(folder), "jpeg").result()
        say("speed: once more, with PNG from both")
        exact = child.submit(speed_ratios, chosen[: len(chosen) // 2], annotations, Path(folder), "png").result()
    unit = "CPU seconds a composite on one core"
    files = "memory" if memory else "disk"
    writes = f"writes composite, mask and photo; the peer writes the composite as PNG; both to {files}"
    return [
        figure("speed", ours, target, "the naive route", unit, f"JPEG: {writes}"),
        figure("speed (PNG)", exact, None, "the naive route", unit, f"PNG: {writes}"),
    ]


def usable(pairs: Sequence[Pair], count: int, folder: Path) -> list[Pair]:
    """The first ``count`` pairs that are not rejected: the naive route rejects none, so others are unequal work."""
    with TemporaryDirectory(dir=folder) as scratch:
        coco_exp.prepare(Path(scratch))
        maker = Maker(SETTINGS, Path(scratch))
        return list(islice((pair for pair in pairs if not maker.make(pair).rejected), count))


def speed_ratios(pairs: Sequence[Pair], annotations: Path, folder: Path, format: Format) -> list[float]:
    """The naive route's CPU time over the generator's, round by round, in this process."""
    peer, out = folder / f"naive-{format}", folder / f"ours-{format}"
    peer.mkdir()
    coco_exp.prepare(out)
    known = naive.open_annotations(annotations)
    maker = Maker(Settings(SETTINGS.seed, format=format), out)
    parts = _parts(sorted(pairs, key=work_order), SPEED_ROUNDS)
    maker.make(parts[0][0])
    naive.make_all(parts[0][:1], known, peer)  # the first call imports
    return interleaved(
        lambda number: _cpu_seconds(maker.make_all, parts[number]),
        lambda number: _cpu_seconds(naive.make_all, parts[number], known, peer),
        SPEED_ROUNDS,
    )


def _scaling(pairs: Sequence[Pair], annotations: Path, count: int, folder: Path, say: Say) -> tuple[Figure, float]:
    """Wall time of the same pairs by Ray actors, driver included, and by processes that know nothing of each other.

    Also the peak memory of one worker in MiB.
    """
    session.connect(say)
    session.require(WORKERS, 0, f"{WORKERS} workers", say)
    ours, peer = folder / "ray", folder / "plain"
    for out in (ours, peer):
        coco_exp.prepare(out)
    log = Log(ours, SETTINGS, annotations, len(pairs))
    warm_up, *parts = _parts(pairs[: count * (SCALING_ROUNDS + 1)], SCALING_ROUNDS + 1)
    parts = [sorted(part, key=work_order) for part in parts]
    with makers(WORKERS, SETTINGS, ours) as run, _process() as first, _process() as second:

        def by_ray(work: Sequence[Pair]) -> None:
            for outcomes in run(chunks(work)):
                log.add(outcomes)

        def by_processes(work: Sequence[Pair]) -> None:
            half = len(work) // 2
            futures = [first.submit(plain_work, work[:half], peer), second.submit(plain_work, work[half:], peer)]
            for future in futures:
                future.result()

        by_ray(warm_up)
        by_processes(warm_up)
        ratios = interleaved(
            lambda number: _seconds(by_ray, parts[number]),
            lambda number: _seconds(by_processes, parts[number]),
            SCALING_ROUNDS,
        )
        worker = first.submit(peak_memory).result()
    unit = f"seconds for {len(parts[0])} pairs"
    return figure("scaling to two workers", ratios, SCALING_TARGET, "two independent processes", unit), worker


_plain: dict[Path, Maker] = {}


def plain_work(pairs: Sequence[Pair], out: Path) -> None:
    """``pairs`` by this process's own maker, which remembers from call to call as an actor does."""
    _plain.setdefault(out, Maker(SETTINGS, out)).make_all(pairs)


def _loading(folder: Path, worker: float, say: Say) -> list[Figure]:
    path = folder / "made-up.json"
    made_up.write(path)
    say(f"loading: {path.stat().st_size / 1e6:.0f} MB written")
    ours: list[float] = []
    peer: list[float] = []

    def measured(function: Callable[[Path], tuple[float, float]], kept: list[float]) -> float:
        with _process() as child:  # a process each: the second load of one would find memory to reuse
            seconds, memory = child.submit(function, path).result()
        kept.append(memory)
        say(f"loading: {len(ours) + len(peer)} of {2 * LOADING_ROUNDS} done")
        return seconds

    ratios = interleaved(
        lambda _: measured(load_and_plan, ours), lambda _: measured(load_by_peer, peer), LOADING_ROUNDS
    )
    memory = [theirs / own for own, theirs in zip(ours, peer, strict=True)]
    told = (
        f"{max(ours):.0f} MiB with the plan of {PAPER_COUNT:,} composites, and {worker:.0f} MiB a worker; "
        f"{max(peer):.0f} MiB for the peer to load"
    )
    return [
        figure("loading annotations", ratios, LOADING_TARGET, "pycocotools.COCO()", "seconds for 860,001 annotations"),
        figure("memory", memory, None, "pycocotools.COCO()", "peak resident memory (larger is better)", told),
    ]


def load_and_plan(path: Path) -> tuple[float, float]:
    """Seconds to load, and the peak MiB of this process with the whole plan of the paper's number of composites."""
    started = time.perf_counter()
    instances = coco.load(path)
    seconds = time.perf_counter() - started
    objects, _ = eligible(instances, Path("train2017"))
    del instances
    pairs = sorted(islice(plan(objects, SETTINGS.seed), PAPER_COUNT), key=work_order)
    assert len(pairs) == PAPER_COUNT
    return seconds, peak_memory()


def load_by_peer(path: Path) -> tuple[float, float]:
    """Seconds and peak MiB of ``pycocotools.COCO()``."""
    started = time.perf_counter()
    loaded = naive.open_annotations(path)
    seconds = time.perf_counter() - started
    assert loaded.anns
    return seconds, peak_memory()


def _memory() -> Path | None:
    """A file system in memory with room for the files, or None for the usual temporary folder."""
    return MEMORY if MEMORY.is_dir() and disk_usage(MEMORY).free > MEMORY_NEEDED else None


@contextmanager
def one_thread() -> Iterator[None]:
    """Processes started meanwhile use one thread each for linear algebra, as workers on Ray do."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _parts(pairs: Sequence[Pair], number: int) -> list[Sequence[Pair]]:
    """``number`` parts of equal length; what is left over is left out."""
    length = len(pairs) // number
    return [pairs[start * length : (start + 1) * length] for start in range(number)]


def _cpu_seconds(function: Callable[..., Any], *arguments: Any) -> float:
    started = time.process_time()
    function(*arguments)
    return time.process_time() - started


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started
