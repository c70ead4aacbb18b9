"""COCO-Exp at scale: candidates in order, in this process or in Ray tasks, until as many composites as asked are made.

    nrh data coco-exp --images train2017 --annotations instances_train2017.json --out coco-exp --count 68128 --workers 8

Every candidate's outcome is noted in ``COCOExp/candidates_<split>.jsonl``: after a kill, or for a larger count, a
second call goes on from there. About 10 ms a composite and core (640x480 JPEG).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nrh_dist.data import coco, coco_exp
from nrh_dist.data.coco_exp import Channels, Format, Method, Outcome, Settings, Split
from nrh_dist.data.pairs import Instance, Pair, candidate_pairs, eligible, plan
from nrh_dist.engine.files import read_lines, write_lines
from nrh_dist.engine.progress import Progress, Say
from nrh_dist.engine.rundir import locked
from nrh_dist.errors import UserError
from nrh_dist.metrics import SIZE_BINS, size_bin

SCHEMA = 1
CHUNK = 32  # candidates a task: about a third of a second of work


@dataclass(frozen=True)
class Summary:
    """Of one split: composites made, candidates rejected by reason, composites by category, size bin and shift."""

    made: int
    rejected: dict[str, int]
    categories: dict[str, int]
    size_bins: dict[str, int]
    shifts: dict[str, int]


def generate(
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
) -> Summary:
    """Write ``count`` composites of the COCO photos in ``images`` to ``out``, as one split of a data root.

    ``workers`` above 1 are Ray tasks at a time, on a Ray that is connected already and sees the same files; the bytes
    do not depend on their number. Composites of a smaller count are a part of those of a larger one.

    Raises ``UserError``: bad arguments or annotations, missing photos, more composites than candidate pairs, a split
    made with other settings, photos that the other split has, a full disk (a further call goes on).
    """
    if count < 1 or workers < 1:
        raise UserError(f"count={count}, workers={workers}: both must be at least 1")
    images, annotations, out = Path(images).resolve(), Path(annotations), Path(out).resolve()
    settings = Settings(seed, method, channels, format, split)
    objects, left_out = eligible(coco.load(annotations), images)
    _check_photos(objects, images)
    pairs = candidate_pairs(objects)
    say(f"{len(objects)} objects ({_counts(left_out)} left out), {pairs} candidate pairs")
    if count > pairs:
        raise UserError(f"count={count}: these annotations give {pairs} candidate pairs; ask for fewer")
    with locked(out):
        _check_other_split(objects, split, out)
        try:
            coco_exp.prepare(out)
            log = _Log(out, settings, annotations, count)
            made = _make(count, plan(objects, seed), settings, out, log, workers, say)
            log.finish(len(made))
            if len(made) < count:
                raise UserError(
                    f"count={count}: of {pairs} candidate pairs {len(made)} can be made "
                    f"({_counts(log.rejected())} rejected); ask for at most {len(made)}"
                )
            coco_exp.write_lists(made, settings, out)
            coco_exp.clean_up(out)
        except OSError as error:
            raise UserError(f"cannot write to {out}: {error.strerror}; mend that and call again: it goes on") from None
    summary = _summarise(made, log.rejected())
    say(f"{summary.made} composites in {out} ({_counts(summary.rejected)} rejected; shifts: {_counts(summary.shifts)})")
    return summary


class _Log:
    """The outcome of every candidate tried, on the disk as soon as it is known; the first line holds the settings."""

    def __init__(self, out: Path, settings: Settings, annotations: Path, count: int) -> None:
        with annotations.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._path = out / coco_exp.SUBSET / f"candidates_{settings.split}.jsonl"
        self._header = {"schema": SCHEMA, **asdict(settings), "annotations": digest, "count": count}
        lines = read_lines(self._path)
        if lines:
            self._check(lines[0], out)
        self.outcomes = {line["index"]: Outcome(**line) for line in lines[1:]}
        self.finish(count)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Note more outcomes."""
        self.outcomes.update({outcome.index: outcome for outcome in outcomes})
        with self._path.open("a") as file:
            file.writelines(json.dumps(asdict(outcome)) + "\n" for outcome in outcomes)

    def finish(self, count: int) -> None:
        """Write everything anew, in the candidates' order, as the log of ``count`` composites."""
        self._header["count"] = count
        ordered = [asdict(self.outcomes[index]) for index in sorted(self.outcomes)]
        write_lines(self._path, [self._header, *ordered])

    def rejected(self) -> dict[str, int]:
        """How many candidates were rejected, by reason."""
        return dict(sorted(Counter(outcome.rejected for outcome in self.outcomes.values() if outcome.rejected).items()))

    def _check(self, header: dict[str, Any], out: Path) -> None:
        changed = [key for key in self._header if key != "count" and header.get(key) != self._header[key]]
        if changed:
            was = ", ".join(f"{key}: {header.get(key)} -> {self._header[key]}" for key in changed)
            raise UserError(f"{out} has a {header['split']} split made otherwise ({was}); choose another --out")
        if header["count"] > self._header["count"]:
            raise UserError(
                f"{out} has a split of {header['count']} composites; ask for at least as many or choose another --out"
            )


def _make(
    count: int, pairs: Iterator[Pair], settings: Settings, out: Path, log: _Log, workers: int, say: Say
) -> list[tuple[Pair, Outcome]]:
    """The first ``count`` pairs that are not rejected, with their outcomes; fewer when the pairs end.

    Works in waves, each as many candidates as are missing: so nothing is ever made beyond the count.
    """
    made: list[tuple[Pair, Outcome]] = []
    progress = Progress(count, say)
    told: set[str] = set()
    while wave := list(islice(pairs, count - len(made))):
        todo = [pair for pair in wave if not _is_done(pair, settings, out, log)]
        chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
        for outcomes in _in_tasks(chunks, settings, out, workers) if workers > 1 else _here(chunks, settings, out):
            log.add(outcomes)
            progress.add(len(outcomes), "COCO-Exp")
            for detail in {outcome.detail for outcome in outcomes if outcome.detail} - told:
                told.add(detail)
                say(f"left out: {detail}")
        made += [(pair, log.outcomes[pair.index]) for pair in wave if not log.outcomes[pair.index].rejected]
    return made


def _is_done(pair: Pair, settings: Settings, out: Path, log: _Log) -> bool:
    outcome = log.outcomes.get(pair.index)
    if outcome is None or outcome.rejected:
        return outcome is not None
    return all(file.exists() for file in coco_exp.files_of(pair, settings, out))


def _here(chunks: Iterable[Sequence[Pair]], settings: Settings, out: Path) -> Iterator[list[Outcome]]:
    return (coco_exp.make_all(chunk, settings, out) for chunk in chunks)


def _in_tasks(chunks: Iterable[Sequence[Pair]], settings: Settings, out: Path, workers: int) -> Iterator[list[Outcome]]:
    """Each chunk in a Ray task, ``workers`` at a time. Ray repeats the task of a dead worker, to the same files."""
    import ray

    task = ray.remote(num_cpus=1)(coco_exp.make_all)
    waiting = iter(chunks)
    running = [task.remote(chunk, settings, out) for chunk in islice(waiting, workers)]
    while running:
        done, running = ray.wait(running)
        running += [task.remote(chunk, settings, out) for chunk in islice(waiting, 1)]
        try:
            yield ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None


def _summarise(made: Sequence[tuple[Pair, Outcome]], rejected: dict[str, int]) -> Summary:
    bins = Counter(size_bin(outcome.area_fraction) for _, outcome in made)
    return Summary(
        made=len(made),
        rejected=rejected,
        categories=dict(sorted(Counter(pair.target.category for pair, _ in made).items())),
        size_bins={label: bins[number] for number, label in enumerate(SIZE_BINS)},
        shifts=dict(Counter(_shift_class(outcome) for _, outcome in made)),
    )


def _shift_class(outcome: Outcome) -> str:
    if coco_exp.is_sub_threshold(outcome):
        return "sub-threshold"
    return "brighter" if outcome.shift_stops > 0 else "darker"


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counted.items())) or "0"


def _check_photos(objects: Sequence[Instance], images: Path) -> None:
    photos = sorted({instance.photo for instance in objects})
    missing = [photo for photo in photos if not photo.exists()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(photos)} photos are missing in {images}, first {missing[0].name}; "
            "give the folder that belongs to these annotations"
        )


def _check_other_split(objects: Sequence[Instance], split: Split, out: Path) -> None:
    other: Split = "test" if split == "train" else "train"
    shared = {f"c{instance.photo_id}" for instance in objects} & coco_exp.listed_photos(out, other)
    if shared:
        raise UserError(
            f"{len(shared)} photos of these annotations are in the {other} split of {out}, first {min(shared)}: a photo"
            " may be in one split only; give the annotations of other photos or another --out"
        )
