"""The means over all images: Table 2, how sure each mean is, by sub-set, and PSNR by others' conventions."""

from pathlib import Path

import numpy as np

from nrh_dist.report import bootstrap, tables
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis, Column, Row, Table, with_best
from nrh_dist.report.statistics import mean

METRICS = (("mse", "MSE", 2), ("psnr", "PSNR, dB", 2), ("fmse", "fMSE", 2), ("lpips", "LPIPS", 4))
CONVENTIONS = (
    ("psnr", "255 (ours)"),
    ("psnr_range", "max − min of the output (DoveNet)"),
    ("psnr_target_max", "max of the real photo (iSSAM)"),
)


def analyse(section: Section, folder: Path) -> Analysis:
    """Of every section."""
    shown = [tables.table_2(section), how_sure(section)]
    if len(section.datasets) > 1:
        shown.append(tables.subsets(section))
    if any(result.has(key) for result in section.results for key, _ in CONVENTIONS[1:]):
        shown.append(psnr_conventions(section))
    return Analysis("means", "Means", [], shown)


def how_sure(section: Section) -> Table:
    """Every mean with its interval, the median and the quartiles, by metric."""
    columns = [
        Column("images", "Images", "", 0),
        Column("mean", "mean", "mean"),
        Column("mean_low", "95 % from", "mean"),
        Column("mean_high", "to", "mean"),
        Column("median", "median", "image by image"),
        Column("lower_quartile", "a quarter is below", "image by image"),
        Column("upper_quartile", "above", "image by image"),
    ]
    rows = []
    for metric, title, decimals in METRICS:
        for result in section.results:
            values = getattr(result, metric)
            known = values[~np.isnan(values)]
            if len(known):
                found = bootstrap.mean(result.photos, values)
                low, middle, high = np.quantile(known, (0.25, 0.5, 0.75)).tolist()
                cells = [len(known), found.value, *found.bounds, middle, low, high]
                rows.append(Row(section.labels[result.run], cells, title, result.model, result.run, decimals))
    caption = "How sure the means are, and what a typical image is like"
    return Table(f"intervals-{section.slug}", caption, columns, rows, [bootstrap.NOTE])


def psnr_conventions(section: Section) -> Table:
    """Mean PSNR with each peak that the field uses."""
    columns = [Column(key, title, "PSNR, dB, with peak") for key, title in CONVENTIONS]
    rows = [
        Row(section.labels[r.run], [mean(getattr(r, key)) for key, _ in CONVENTIONS], "", r.model, r.run)
        for r in section.results
    ]
    notes = ["Only PSNR with the same peak can be compared."]
    rows = with_best(rows, dict.fromkeys(range(len(columns)), max))
    return Table(f"psnr-peaks-{section.slug}", "PSNR by the conventions of others", columns, rows, notes)
