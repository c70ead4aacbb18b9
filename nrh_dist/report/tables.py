"""The tables that stand beside the paper's: means, by object size, by sub-set, and the published numbers."""

from dataclasses import replace
from math import nan

import numpy as np

from nrh_dist.report import differences, paper
from nrh_dist.report.bootstrap import FEWEST_PHOTOS
from nrh_dist.report.collect import IDENTITY, Result
from nrh_dist.report.groups import BINS
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Column, Row, Table, percent, spaced, with_best
from nrh_dist.report.statistics import by_bin, change, mean, means

PAPER_BINS = 8  # 0-10 % ... 70-80 %


def table_2(section: Section) -> Table:
    """Means over all images of the section, with the paper's Table 2 beside them where it has the data."""
    groups = (f"ours, {section.size} px", "change against identity, %", "images made worse, %")
    columns = [
        Column("mse", "MSE", groups[0]),
        Column("psnr", "PSNR, dB", groups[0]),
        Column("fmse", "fMSE", groups[0]),
        Column("lpips", "LPIPS", groups[0], 4),
        Column("change_percent", "MSE", groups[1], 1),
        Column("change_low_percent", "95 % from", groups[1], 1),
        Column("change_high_percent", "to", groups[1], 1),
        Column("worse_percent", "by > 0.01", groups[2], 1),
        Column("worse1_percent", "by > 1", groups[2], 1),
    ]
    rows = [_means_row(section, result) for result in section.results]
    published = paper.TABLE_2.get(section.collection or "", {})
    if published:
        columns += [
            Column("paper_mse", "MSE", "paper, 256 px", 0),
            Column("paper_psnr", "PSNR, dB", "paper, 256 px"),
        ]
        rows = [replace(row, values=row.values + _pair(published.get(row.model))) for row in rows]
        evaluated = {result.model for result in section.results}
        rows += [
            Row(paper.LABELS[model], [nan] * 9 + _pair(values), "", model)
            for model, values in published.items()
            if model not in evaluated
        ]
        rows.sort(
            key=lambda row: list(paper.LABELS).index(row.model) if row.model in paper.LABELS else len(paper.LABELS)
        )
    caption = f"Means over {len(section.identity):,} images of {section.title}"
    return Table(f"table2-{section.slug}", caption, columns, with_best(rows, {0: min, 1: max}), _notes_2(section))


def table_3(section: Section) -> Table:
    """MSE by the object's share of the image, its change against identity, and the paper's Table 3 below."""
    identity = by_bin(section.identity)
    shown = [i for i, one in enumerate(identity) if i < PAPER_BINS or one.count]
    columns = [Column(BINS[i], spaced(BINS[i])) for i in shown]
    ours, against = f"ours, {section.size} px: MSE", "ours: change against identity, %"
    rows = [Row("Images", [identity[i].count for i in shown], ours, decimals=0)]
    changes: list[Row] = []
    for result in section.results:
        bins, label = by_bin(result), section.labels[result.run]
        rows.append(Row(label, [bins[i].mse for i in shown], ours, result.model, result.run))
        if result.model != IDENTITY:
            ratios = [percent(bins[i].mse, bins[i].identity_mse) for i in shown]
            changes.append(Row(label, ratios, against, result.model, result.run, decimals=1))
    rows = with_best(rows, dict.fromkeys(range(len(shown)), min)) + changes
    notes = []
    if section.collection:
        rows += _paper_bins(section.collection, len(shown))
        notes.append("Paper: other images per bin, another size and other training; compare within a block only.")
    if section.collection == "iHarmony4":
        notes.append(
            "The paper prints no counts: those in its block were counted from the masks of iHarmony4’s test split."
        )
    unbinned = int(np.isnan(section.identity.area_fraction).sum())
    if unbinned:
        notes.append(f"{unbinned:,} images have no known object area and are in no bin.")
    empty = [columns[i].title for i, one in enumerate(shown) if identity[one].count == 0]
    if empty:
        notes.append(f"No images with an object of {', '.join(empty)}.")
    return Table(f"table3-{section.slug}", "MSE by share of the image that the object covers", columns, rows, notes)


def subsets(section: Section) -> Table:
    """MSE and PSNR by sub-set."""
    columns, values = [], []
    for dataset in section.datasets:
        parts = [result.of((dataset,)) for result in section.results]
        group = f"{dataset}, {len(parts[0]):,} images"
        columns += [Column(f"{dataset}_mse", "MSE", group), Column(f"{dataset}_psnr", "PSNR, dB", group)]
        values.append([(mean(part.mse), mean(part.psnr)) for part in parts])
    rows = [
        Row(section.labels[result.run], [v for one in values for v in one[i]], "", result.model, result.run)
        for i, result in enumerate(section.results)
    ]
    best = {i: (max if i % 2 else min) for i in range(len(columns))}
    return Table(f"subsets-{section.slug}", "Means by sub-set", columns, with_best(rows, best))


def table_1(section: Section) -> Table | None:
    """The paper's Table 1: one harmoniser with the true masks and with the predicted ones; None without two_stage."""
    found = differences.pairs(section)
    if not found:
        return None
    metrics = (("mse", "MSE", 2), ("psnr", "PSNR, dB", 2), ("lpips", "LPIPS", 4))
    published = paper.TABLE_1.get(section.collection or "")
    blocks = [("", f"ours, {section.size} px"), *([("paper_", "paper, 256 px")] if published else [])]
    columns = [
        Column(f"{key}{name}", title, group, decimals) for key, group in blocks for name, title, decimals in metrics
    ]
    rows = []
    for pair in found:
        group = pair.run if len(found) > 1 else ""
        sides = [[mean(getattr(result, name)) for name, *_ in metrics] for result in (pair.true, pair.predicted)]
        sides.append([mean(pair.difference(name)) for name, *_ in metrics])
        if published:
            theirs = [published["dih_m"], published["two_stage"]]
            theirs.append(tuple(p - s for s, p in zip(*theirs, strict=True)))
            sides = [[*ours, *values] for ours, values in zip(sides, theirs, strict=True)]
        true, predicted = pair.true, pair.predicted
        rows += [
            Row("C_s: true masks", sides[0], group, true.model, true.run),
            Row("C_p: predicted masks", sides[1], group, predicted.model, predicted.run),
            Row("C_p − C_s", sides[2], group),
        ]
    notes = [paper.TABLE_1_NOTE] if published else []
    return Table(f"table1-{section.slug}", "Means with the true and the predicted masks", columns, rows, notes)


def difference_bins(section: Section) -> Table:
    """The mean difference C_p - C_s of every two-stage run, over all images and by size bin."""
    groups = ("MSE, C_p − C_s", "mean C_p − C_s", "predicted mask, images, %")
    columns = [
        Column("images", "Images", "", 0),
        Column("mse_difference", "mean", groups[0]),
        Column("mse_difference_low", "95 % from", groups[0]),
        Column("mse_difference_high", "to", groups[0]),
        Column("psnr_difference", "PSNR, dB", groups[1]),
        Column("lpips_difference", "LPIPS", groups[1], 4),
        Column("better1_percent", "better by > 1", groups[2], 1),
        Column("worse1_percent", "worse by > 1", groups[2], 1),
    ]
    found = differences.pairs(section)
    rows = []
    for pair in found:
        for one in differences.by_bin(pair):
            label = spaced(one.label)
            values = [one.mse.value, *one.mse.bounds, one.psnr, one.lpips]
            shares = [100 * one.better1, 100 * one.worse1]
            rows.append(Row(label, [one.count, *values, *shares], pair.run if len(found) > 1 else "", run=pair.run))
    notes = [
        f"Intervals: bootstrap over photos; none with fewer than {FEWEST_PHOTOS}. Better and worse: by MSE. "
        "Below 0 the predicted mask gives the lower error (for PSNR above 0)."
    ]
    caption = "Difference by share of the image that the object covers"
    return Table(f"difference-bins-{section.slug}", caption, columns, rows, notes)


def published() -> list[Table]:
    """The paper's Tables 2 and 3 as such, for a page whose data it has no numbers for."""
    columns, rows = [], [Row(paper.LABELS[model], [], "", model) for model in paper.TABLE_2["iHarmony4"]]
    for collection, models in paper.TABLE_2.items():
        columns += [
            Column(f"{collection}_mse", "MSE", collection, 0),
            Column(f"{collection}_psnr", "PSNR, dB", collection),
        ]
        rows = [replace(row, values=row.values + _pair(models[row.model])) for row in rows]
    notes = list(paper.IDENTITY_NOTE.values())
    made = [Table("paper-table2", "The paper’s Table 2, 256 px", columns, rows, notes)]
    bins = [Column(label, spaced(label)) for label in BINS[:PAPER_BINS]]
    rows = [
        replace(row, group=collection)
        for collection in paper.TABLE_3
        for row in _paper_bins(collection, PAPER_BINS)
        if row.model
    ]
    return [*made, Table("paper-table3", "The paper’s Table 3, 256 px: MSE by object size", bins, rows)]


def masked_methods() -> Table:
    """What others reached on iHarmony4 with the mask, for context."""
    columns = [Column("mse", "MSE"), Column("psnr", "PSNR, dB")]
    rows = [Row(method, list(values)) for method, values in paper.MASKED_METHODS.items()]
    caption = "Methods that are given the mask, on iHarmony4 at 256 px, as published"
    return Table("masked-methods", caption, columns, rows, [paper.MASKED_METHODS_NOTE])


def _means_row(section: Section, result: Result) -> Row:
    values = means(result)
    row = [values.mse, values.psnr, values.fmse, values.lpips]
    if result.model == IDENTITY:
        row += [nan] * 5
    else:
        found = change(result)
        low, high = found.bounds if found else (nan, nan)
        row += [100 * (found.value if found else nan), 100 * low, 100 * high, 100 * values.worse, 100 * values.worse1]
    return Row(section.labels[result.run], row, "", result.model, result.run)


def _notes_2(section: Section) -> list[str]:
    found = [(section.labels[result.run], means(result)) for result in section.results]
    notes = ["Bold: best without the mask, doing nothing included. fMSE: inside the mask only."]
    empty = max(values.fmse_empty for _, values in found)
    if empty:
        notes.append(f"fMSE leaves out {empty:,} images with an empty mask.")
    notes += [f"{label}: PSNR capped at 100 dB for {v.psnr_capped:,} images." for label, v in found if v.psnr_capped]
    notes += [f"{label}: {v.without_mse:,} images without a value, left out." for label, v in found if v.without_mse]
    if gone := section.evaluation.summary.left_out:
        listed = ", ".join(gone.names) + (", …" if gone.count > len(gone.names) else "")
        notes.append(f"{gone.count:,} samples of the data, whose files cannot be used, are in no number: {listed}.")
    if section.evaluation.summary.lpips:
        notes.append(f"LPIPS was not measured ({section.evaluation.summary.lpips}).")
    if section.collection:
        notes.append(paper.IDENTITY_NOTE[section.collection])
    return notes


def _paper_bins(collection: str, width: int) -> list[Row]:
    group, missing = "paper, 256 px: MSE", [nan] * (width - PAPER_BINS)
    counts = [Row("Images", [*paper.IHARMONY4_BIN_COUNTS, *missing], group, decimals=0)]
    rows = [
        Row(paper.LABELS[model], [*values, *missing], group, model)
        for model, values in paper.TABLE_3[collection].items()
    ]
    return (counts if collection == "iHarmony4" else []) + rows


def _pair(values: tuple[float, float | None] | None) -> list[float]:
    return [nan, nan] if values is None else [nan if value is None else value for value in values]
