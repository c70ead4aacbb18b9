"""Which images may be averaged together: one evaluation's, and of those one collection's, never a mixture."""

import re
from dataclasses import dataclass

from nrh_dist.report import paper
from nrh_dist.report.collect import TRUE_MASKS, Evaluation, Result, Strip


@dataclass(frozen=True)
class Section:
    """The images of one evaluation that may be averaged together: iHarmony4's, COCO-Exp's or other sub-sets.

    ``collection`` is the key of the paper's numbers, None where the paper has none; ``labels`` gives each run's name.
    """

    title: str
    slug: str
    collection: str | None
    datasets: tuple[str, ...]
    evaluation: Evaluation
    results: list[Result]
    strips: list[Strip]
    labels: dict[str, str]

    @property
    def size(self) -> int:
        return self.evaluation.size

    @property
    def identity(self) -> Result:
        return self.results[0]


def sections(evaluations: list[Evaluation]) -> list[Section]:
    """Each evaluation's images by collection: iHarmony4's sub-sets, COCO-Exp, the others."""
    found: list[Section] = []
    for evaluation in evaluations:
        labels = _labels(evaluation.results)
        names = tuple(name for name, count in evaluation.summary.datasets.items() if count)
        known = {dataset for datasets in paper.COLLECTIONS.values() for dataset in datasets}
        groups: list[tuple[str | None, tuple[str, ...]]] = [
            (collection, tuple(name for name in datasets if name in names))
            for collection, datasets in paper.COLLECTIONS.items()
        ]
        groups.append((None, tuple(name for name in names if name not in known)))
        for collection, datasets in groups:
            if not datasets:
                continue
            title = collection or " + ".join(datasets)
            slug = _slug(title)
            twins = [section for section in found if section.slug == slug or section.slug.startswith(f"{slug}-")]
            if twins:
                title, slug = f"{title}, {evaluation.folder.resolve().name}", f"{slug}-{len(twins) + 1}"
            results = [result.of(datasets) for result in evaluation.results]
            strips = [s for s in evaluation.strips.strips if s.dataset in datasets] if evaluation.strips else []
            found.append(Section(title, slug, collection, datasets, evaluation, results, strips, labels))
    return found


def _labels(results: list[Result]) -> dict[str, str]:
    """The paper's name of each run's model; with the run, where several runs share the model.

    The harmoniser of a two-stage run, with the true masks, is then named after that run.
    """
    models = [result.model for result in results]
    labels = {}
    for result in results:
        label = paper.LABELS.get(result.model, result.model)
        if models.count(result.model) > 1:
            owner = result.run.removesuffix(TRUE_MASKS)
            label += f", {result.run}" if owner == result.run else f" of {owner}"
        labels[result.run] = label
    return labels


def _slug(title: str) -> str:
    """The title as a part of file names and of the page's addresses."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "data"
