"""Every file of a data root read once, in parallel: what is missing, broken or of the wrong size, with its path."""

from collections.abc import Callable, Iterator
from pathlib import Path

from nrh_dist.data.images import ImageProblem, check_decodes, check_same_size
from nrh_dist.data.layouts import Source, scan
from nrh_dist.data.processes import ordered_map
from nrh_dist.data.samples import Problem, Sample, by_photo, check_mask_size, leaked_groups, mask_of

__all__ = ["Problem", "report", "verify"]

CHUNK = 64  # samples a task


def verify(source: Source, workers: int | None = None) -> list[Problem]:
    """All problems of the listed files, in the order of the index; an empty list means that training will read them.

    Found: list lines that leave the root or cannot be split (under the list's path), files that are missing, empty,
    truncated, too large to be true or not an image, composites and masks whose size is not that of their real photo.
    Raises ``UserError`` like ``scan`` where there is nothing to check. ``workers`` None means one process per core.
    """
    samples, problems = scan(source)
    tasks = [[samples[position] for position in chunk] for chunk in by_photo(samples, CHUNK)]
    for found in ordered_map(_check, tasks, workers):
        problems += found
    return list(dict.fromkeys(problems))


def report(source: Source, say: Callable[[str], None]) -> bool:
    """Say each problem of ``source`` in one line, then what leaks from train to test, then the sum. True: no problem.

    A leak is no problem of the files: the official lists of iHarmony4 have it.
    """
    problems = verify(source)
    for path, reason in problems:
        say(f"{path}: {reason}")
    samples, _ = scan(source)
    for dataset, count in leaked_groups(samples).items():
        say(
            f"{dataset}: {count} photos or scenes are in both train and test or val (data.drop_leaked=true leaves them "
            "out)"
        )
    say(f"{len(samples)} samples listed in {source}: {len(problems)} problems")
    return not problems


def _check(samples: list[Sample]) -> list[Problem]:
    problems: list[Problem] = []
    sizes: dict[Path, tuple[int, int]] = {}
    for path in dict.fromkeys(path for sample in samples for path in _files(sample)):
        try:
            sizes[path] = check_decodes(path)
        except ImageProblem as problem:
            problems.append(Problem(problem.path, problem.reason))
    for sample in samples:
        if sample.real in sizes:
            problems += _disagreements(sample, sizes)
    return problems


def _files(sample: Sample) -> list[Path]:
    return [file for file in (sample.real, sample.mask, sample.composite) if isinstance(file, Path)]


def _disagreements(sample: Sample, sizes: dict[Path, tuple[int, int]]) -> Iterator[Problem]:
    """Mask and composite where they do not fit the photo; what cannot be read is known already."""
    real_size = sizes[sample.real]
    try:
        if sample.composite in sizes:
            check_same_size(sample.composite, sizes[sample.composite], sample.real, real_size)
    except ImageProblem as problem:
        yield Problem(problem.path, problem.reason)
    try:
        if not isinstance(sample.mask, Path):
            check_mask_size(sample, mask_of(sample).shape[::-1], real_size)
        elif sample.mask in sizes:
            check_mask_size(sample, sizes[sample.mask], real_size)
    except ImageProblem as problem:
        yield Problem(problem.path, problem.reason)
