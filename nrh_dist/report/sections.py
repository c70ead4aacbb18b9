"""Which images may be averaged together: one evaluation's, and of those one collection's, never a mixture."""

from dataclasses import dataclass

import numpy as np

from nrh_dist.report import paper
from nrh_dist.report.collect import TRUE_MASKS, Evaluation, Result, Strip
from nrh_dist.report.parts import free_slug, slug_of


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

    @property
    def kind(self) -> str:
        """What the images are, in a word: untouched photos, whose input has no error, are no composites."""
        errors = self.identity.mse
        return "composites" if np.isnan(errors).all() or np.nanmax(errors) > 0 else "untouched photos"


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
            taken = [section.slug for section in found]
            wanted = slug_of(title) or "data"
            slug = free_slug(wanted, taken)
            if wanted in taken:
                title = f"{title}, {evaluation.folder.resolve().name}"
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
