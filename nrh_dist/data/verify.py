"""Every file of a data root read once, in parallel: what is missing, broken or of the wrong size, with its path."""

from collections.abc import Callable
from pathlib import Path

from nrh_dist.data.iharmony4 import Problem, Sample, by_photo, leaked_groups, scan
from nrh_dist.data.images import ImageProblem, check_decodes, check_same_size
from nrh_dist.data.processes import ordered_map

__all__ = ["Problem", "report", "verify"]

CHUNK = 64  # composites a task


def verify(root: str | Path, workers: int | None = None) -> list[Problem]:
    """All problems of the listed files, in the order of the index; an empty list means that training will read them.

    Found: list lines that leave the root or cannot be split (under the list's path), files that are missing, empty,
    truncated, too large to be true or not an image, composites and masks whose size is not that of their real photo.
    Raises ``UserError`` like ``scan`` where there is nothing to check. ``workers`` None means one process per core.
    """
    samples, problems = scan(root)
    tasks = [[samples[position] for position in chunk] for chunk in by_photo(samples, CHUNK)]
    for found in ordered_map(_check, tasks, workers):
        problems += found
    return list(dict.fromkeys(problems))


def report(root: str | Path, say: Callable[[str], None]) -> bool:
    """Say each problem of ``root`` as one line, then what leaks from train to test, then the sum. True: no problem.

    A leak is no problem of the files: the official lists of iHarmony4 have it.
    """
    problems = verify(root)
    for path, reason in problems:
        say(f"{path}: {reason}")
    samples, _ = scan(root)
    for dataset, count in leaked_groups(samples).items():
        say(f"{dataset}: {count} photos or scenes are in both train and test (data.drop_leaked=true leaves them out)")
    say(f"{len(samples)} composites listed in {root}: {len(problems)} problems")
    return not problems


def _check(samples: list[Sample]) -> list[Problem]:
    problems: list[Problem] = []
    sizes: dict[Path, tuple[int, int]] = {}
    for path in dict.fromkeys(path for sample in samples for path in (sample.real, sample.mask, sample.composite)):
        try:
            sizes[path] = check_decodes(path)
        except ImageProblem as problem:
            problems.append(Problem(problem.path, problem.reason))
    for sample in samples:
        for path in (sample.mask, sample.composite):
            if path not in sizes or sample.real not in sizes:
                continue
            try:
                check_same_size(path, sizes[path], sample.real, sizes[sample.real])
            except ImageProblem as problem:
                problems.append(Problem(problem.path, problem.reason))
    return problems
