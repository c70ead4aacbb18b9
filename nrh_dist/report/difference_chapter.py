"""What a chapter of the page says of the predicted mask against the true one, with its tables and figures."""

from pathlib import Path

from nrh_dist.report import difference_figures, differences, tables
from nrh_dist.report.bootstrap import FEWEST_PHOTOS
from nrh_dist.report.differences import Bin, Pair
from nrh_dist.report.parts import Picture, number
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis

VERDICTS = {-1: "is lower", 0: "cannot be told apart", 1: "is higher"}


OPENING = (
    "One harmoniser, given the true mask (C_s) and the mask that the detector predicts (C_p), without joint training. "
    "Image by image: "
)


def analyse(section: Section, folder: Path) -> Analysis | None:
    """A sentence a two-stage run, the paper's Table 1, the differences by size bin, and image by image as a figure and
    a CSV file; None without two_stage."""
    found = differences.pairs(section)
    first = tables.table_1(section)
    if not found or first is None:
        return None
    made = [first, tables.difference_bins(section)]
    images = f"tables/differences-{section.slug}.csv"
    differences.write_images(found, folder / images)
    sentences = [f"{OPENING}{images}."]
    sentences += [_sentence(pair, differences.by_bin(pair)[0], len(found) > 1) for pair in found]
    charts = [chart for i, pair in enumerate(found, start=1) for chart in _charts(section, pair, i, folder)]
    return Analysis("masks", "The predicted mask against the true one", sentences, made, charts)


def _sentence(pair: Pair, overall: Bin, named: bool) -> str:
    if not overall.count:
        return f"{pair.run}: no image has an error on both sides."
    difference = overall.mse
    if difference.interval is None:
        sure = f"{difference.photos} photos, too few for an interval: at least {FEWEST_PHOTOS} are needed"
    else:
        low, high = (number(bound, 2, sign=True) for bound in difference.interval)
        sure = f"95 % interval {low} to {high}, bootstrap over {difference.photos:,} photos"
    opening = f"{pair.run}: with" if named else "With"
    return (
        f"{opening} the predicted mask the mean MSE {VERDICTS[difference.verdict]} "
        f"{'from' if difference.verdict == 0 else 'than'} that with the true mask: "
        f"{number(difference.value, 2, sign=True)} ({sure}). Of {overall.count:,} images it is better on "
        f"{100 * overall.better1:.0f} % and worse on {100 * overall.worse1:.0f} %, by more than 1."
    )


def _charts(section: Section, pair: Pair, run: int, folder: Path) -> list[Picture]:
    charts = []
    for metric, name in (("mse", "MSE"), ("psnr", "PSNR"), ("lpips", "LPIPS")):
        data = difference_figures.points(pair, metric)
        if not len(data.values):
            continue
        file = f"figures/difference-{metric}-{section.slug}-{run}.png"
        difference_figures.draw(data, folder / file)
        same = ", grey: by 1 at most; logarithmic beyond ±1" if metric == "mse" else ""
        caption = (
            f"{pair.run}: {name} of C_p − C_s, a point an image, as in the paper’s Figure 5. Blue: the predicted mask "
            f"is better; orange: worse{same}. Bars: mean of a size bin, dashed with fewer than "
            f"{difference_figures.FEW_IMAGES} images."
        )
        alt = f"Scatter plot of {data.title} over the object's size, for {len(data.values):,} images. {caption}"
        charts.append(Picture(file, alt, caption))
    return charts
