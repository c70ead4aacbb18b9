"""That the numbers of ``summary.json`` are those of the rows in ``per_image.csv``: each file vouches for the other."""

from collections.abc import Iterator

from nrh_dist.errors import UserError
from nrh_dist.report.collect import Evaluation, RunMeans
from nrh_dist.report.groups import FIELD_BINS, field_bins, tenths
from nrh_dist.report.result import Result
from nrh_dist.report.statistics import median, weighted_mean

TOLERANCE = 1e-3  # relative, and absolute below 1: the rows are rounded to six decimals


def check_summary(evaluation: Evaluation) -> None:
    """Raise ``UserError`` where the rows, averaged over bins, do not give what ``summary.json`` states."""
    written = {(entry.dataset, entry.run): entry for entry in evaluation.summary.models}
    for result in evaluation.results:
        for dataset in evaluation.summary.datasets:
            entry = written.get((dataset, result.run))
            if entry is None:
                continue
            for what, stated, ours in _pairs(entry, result.of((dataset,))):
                if stated is not None and not abs(ours - stated) <= TOLERANCE * max(1.0, abs(stated)):
                    raise UserError(
                        f"{evaluation.folder}: summary.json states {what} {stated:.3f} for run {result.run} on "
                        f"{dataset}, but per_image.csv gives {ours:.3f}: make the evaluation again"
                    )


def _pairs(entry: RunMeans, rows: Result) -> Iterator[tuple[str, float | None, float]]:
    """What is compared: its name, as stated, as the rows give it."""
    bins = tenths(rows.area_fraction)
    if bins.counts(rows.mse).sum() == len(rows):  # else an image has no value or no area
        yield "MSE", entry.mse, weighted_mean(bins.means(rows.mse), bins.counts(rows.mse))
    yield "a median MSE of", entry.median_mse, median(rows.mse)
    means = field_bins(rows.area_fraction).means(rows.mse)
    for one in entry.field_bins:
        if one.bin in FIELD_BINS:
            yield f"MSE in {one.bin}", one.mse, float(means[FIELD_BINS.index(one.bin)])
