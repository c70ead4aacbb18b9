"""By object size: the paper's tenths beside its Table 3, the field's three bins, and MSE over the tenths."""

from pathlib import Path

from nrh_dist.report import bin_figures, tables
from nrh_dist.report.groups import Groups, field_bins, tenths
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis, Column, Row, Table, spaced, with_best
from nrh_dist.report.statistics import mean

METRICS = (("mse", "MSE", 2, min), ("psnr", "PSNR, dB", 2, max), ("fmse", "fMSE", 2, min))


def analyse(section: Section, folder: Path) -> Analysis | None:
    """None where no object's area is known."""
    if not section.identity.has("area_fraction"):
        return None
    shown = [tables.table_3(section), field_table(section)]
    charts = bin_figures.charts(section, *drawn(section), "bins", "object size in % of the image", folder)
    return Analysis("size", "By object size", [], shown, charts)


def field_table(section: Section) -> Table:
    """MSE, PSNR and fMSE in the bins 0-5, 5-15 and 15-100 %; each bin's images weight its means to "All"."""
    groups = field_bins(section.identity.area_fraction)
    columns = [Column(label, spaced(label)) for label in groups.labels] + [Column("all", "All")]
    rows: list[Row] = []
    for metric, title, decimals, better in METRICS:
        found = [(result, getattr(result, metric)) for result in section.results if result.has(metric)]
        if not found:
            continue
        counts = max((groups.counts(values) for _, values in found), key=lambda one: one.sum())
        rows.append(Row("Images", [*counts.tolist(), int(counts.sum())], title, decimals=0))
        block = []
        for result, values in found:
            overall = mean(values[groups.index >= 0])
            cells = [*groups.means(values).tolist(), overall]
            block.append(Row(section.labels[result.run], cells, title, result.model, result.run, decimals))
        rows += with_best(block, dict.fromkeys(range(len(columns)), better))
    notes = ["Each bin holds its lower edge. fMSE leaves out images with an empty mask."]
    return Table(f"field-bins-{section.slug}", "Means by object size, in the field’s bins", columns, rows, notes)


def drawn(section: Section) -> tuple[Groups, range]:
    """Tenths, from the first to the last with images."""
    groups = tenths(section.identity.area_fraction)
    labels = [label.removesuffix("%").replace("-", "–") for label in groups.labels]
    return Groups(labels, groups.index), range(groups.index.max() + 1)
