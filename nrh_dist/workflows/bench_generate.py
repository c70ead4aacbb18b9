"""The COCO-Exp generator against its peers: the naive route, independent processes, and pycocotools' reader."""

import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2

from nrh_dist.data import coco, coco_exp
from nrh_dist.data.coco_exp import Format, Maker, Settings, work_order
from nrh_dist.data.jpeg import read_rgb
from nrh_dist.data.pairs import Pair, eligible, plan
from nrh_dist.data.synthetic import write_sample
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.launch import session
from nrh_dist.launch.candidates import Log
from nrh_dist.launch.makers import chunks, makers
from nrh_dist.workflows import made_up, naive
from nrh_dist.workflows.measure import (
    Figure,
    cpu_seconds,
    figure,
    in_turns,
    memory_folder,
    new_process,
    one_thread,
    peak_memory,
    ratios,
    seconds,
)

SPEED_ROUNDS, SCALING_ROUNDS, LOADING_ROUNDS = 10, 7, 3
FEWEST_PAIRS = 2 * SPEED_ROUNDS  # half of them are done once more, with PNG
SPEED_TARGET, SCALING_TARGET, LOADING_TARGET = 20.0, 0.9, 5.0
WORKERS = 2
PAPER_COUNT = 68_128  # composites of the paper's COCO-Exp
MEMORY_NEEDED = 2 << 30  # bytes
SETTINGS = Settings(seed=0)


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
    memory = memory_folder(MEMORY_NEEDED)
    with TemporaryDirectory(prefix="nrh-bench-", dir=memory) as folder, new_process() as child:
        chosen = child.submit(usable, pairs, count, Path(folder)).result()
        _check_number(chosen, annotations)
        say(f"speed: {len(chosen)} pairs by the generator and by the naive route, in turns")
        jpeg = child.submit(speed_costs, chosen, annotations, Path(folder), "jpeg").result()
        say("speed: once more, with PNG from both")
        png = child.submit(speed_costs, chosen[: len(chosen) // 2], annotations, Path(folder), "png").result()
    unit = "CPU seconds a composite on one core"
    files = "memory" if memory else "disk"
    writes = f"writes composite, mask and photo; the peer writes the composite as PNG; both to {files}"
    return [
        _against_the_naive_route("speed", jpeg, target, unit, f"JPEG: {writes}"),
        _against_the_naive_route("speed (PNG)", png, None, unit, f"PNG: {writes}"),
    ]


def _against_the_naive_route(
    name: str, costs: dict[str, list[float]], target: float | None, unit: str, note: str
) -> Figure:
    ours = costs["ours"]
    found = figure(name, ratios(costs["peer"], ours), target, "the naive route", unit, note)
    return found.above(ours, costs["floor"], "its photos and masks decoded and its pictures encoded once, nothing else")


def usable(pairs: Sequence[Pair], count: int, folder: Path) -> list[Pair]:
    """The first ``count`` pairs that are not rejected: the naive route rejects none, so others are unequal work."""
    with TemporaryDirectory(dir=folder) as scratch:
        coco_exp.prepare(Path(scratch))
        maker = Maker(SETTINGS, Path(scratch))
        return list(islice((pair for pair in pairs if not maker.make(pair).rejected), count))


def speed_costs(pairs: Sequence[Pair], annotations: Path, folder: Path, format: Format) -> dict[str, list[float]]:
    """CPU time of the generator, of the naive route and of the floor, round by round, in this process."""
    peer, out = folder / f"naive-{format}", folder / f"ours-{format}"
    peer.mkdir()
    coco_exp.prepare(out)
    known = naive.open_annotations(annotations)
    maker = Maker(Settings(SETTINGS.seed, format=format), out)
    parts = _parts(sorted(pairs, key=work_order), SPEED_ROUNDS)
    maker.make(parts[0][0])
    naive.make_all(parts[0][:1], known, peer)  # the first call imports
    return in_turns(
        {
            "ours": lambda number: cpu_seconds(maker.make_all, parts[number]),
            "peer": lambda number: cpu_seconds(naive.make_all, parts[number], known, peer),
            "floor": lambda number: cpu_seconds(codecs_only, parts[number], format),
        },
        SPEED_ROUNDS,
    )


def codecs_only(pairs: Sequence[Pair], format: Format) -> None:
    """What no generator can do without: photos and masks decoded once, composites and masks encoded once; no files.

    ``pairs`` are in ``work_order``. An untouched photo stands for the composite: as many pixels, much the same bytes.
    """
    done: set[Path | int] = set()
    photo = None
    for pair in pairs:
        for instance in (pair.reference, pair.target):
            if instance.photo not in done:
                read = read_rgb(instance.photo)
                done.add(instance.photo)
                photo = read if photo is None or instance is pair.target else photo
            if instance.annotation_id not in done:
                mask = coco.decode_mask(instance.segmentation, instance.height, instance.width)
                done.add(instance.annotation_id)
                if instance is pair.target:
                    cv2.imencode(".png", mask, coco_exp.MASK_OPTIONS)
        assert photo is not None
        cv2.imencode(coco_exp.EXTENSIONS[format], photo, coco_exp.PHOTO_OPTIONS[format])


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
    with makers(WORKERS, SETTINGS, ours) as run, new_process() as first, new_process() as second:

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
        costs = in_turns(
            {
                "ours": lambda number: seconds(by_ray, parts[number]),
                "peer": lambda number: seconds(by_processes, parts[number]),
            },
            SCALING_ROUNDS,
        )
        worker = first.submit(peak_memory).result()
    unit = f"seconds for {len(parts[0])} pairs"
    peer_costs, own = costs["peer"], costs["ours"]
    found = figure("scaling to two workers", ratios(peer_costs, own), SCALING_TARGET, "two independent processes", unit)
    return found.above(own, peer_costs, "the two independent processes themselves"), worker


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
        with new_process() as child:  # a process each: the second load of one would find memory to reuse
            took, memory = child.submit(function, path).result()
        kept.append(memory)
        say(f"loading: {len(ours) + len(peer)} of {2 * LOADING_ROUNDS} done")
        return took

    costs = in_turns(
        {"ours": lambda _: measured(load_and_plan, ours), "peer": lambda _: measured(load_by_peer, peer)},
        LOADING_ROUNDS,
    )
    times = ratios(costs["peer"], costs["ours"])
    told = (
        f"{max(ours):.0f} MiB with the plan of {PAPER_COUNT:,} composites, and {worker:.0f} MiB a worker; "
        f"{max(peer):.0f} MiB for the peer to load"
    )
    return [
        figure("loading annotations", times, LOADING_TARGET, "pycocotools.COCO()", "seconds for 860,001 annotations"),
        figure("memory", ratios(peer, ours), None, "pycocotools.COCO()", "peak memory (larger is better)", told),
    ]


def load_and_plan(path: Path) -> tuple[float, float]:
    """Seconds to load, and the peak MiB of this process with the whole plan of the paper's number of composites."""
    started = time.perf_counter()
    instances = coco.load(path)
    took = time.perf_counter() - started
    objects, _ = eligible(instances, Path("train2017"))
    del instances
    pairs = sorted(islice(plan(objects, SETTINGS.seed), PAPER_COUNT), key=work_order)
    assert len(pairs) == PAPER_COUNT
    return took, peak_memory()


def load_by_peer(path: Path) -> tuple[float, float]:
    """Seconds and peak MiB of ``pycocotools.COCO()``."""
    started = time.perf_counter()
    loaded = naive.open_annotations(path)
    took = time.perf_counter() - started
    assert loaded.anns
    return took, peak_memory()


def _parts(pairs: Sequence[Pair], number: int) -> list[Sequence[Pair]]:
    """``number`` parts of equal length; what is left over is left out."""
    length = len(pairs) // number
    return [pairs[start * length : (start + 1) * length] for start in range(number)]
