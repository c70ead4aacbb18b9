"""By object size: the paper's tenths beside its Table 3, the field's three bins, and MSE over the tenths."""

from pathlib import Path

from nrh_dist.report import bin_figures, figures, tables
from nrh_dist.report.groups import Groups, field_bins, tenths
from nrh_dist.report.parts import Picture
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis, Column, Row, Table, spaced, with_best
from nrh_dist.report.statistics import mean

METRICS = (("mse", "MSE", 2, min), ("psnr", "PSNR, dB", 2, max), ("fmse", "fMSE", 2, min))


def analyse(section: Section, folder: Path) -> Analysis | None:
    """None where no object's area is known."""
    if not section.identity.has("area_fraction"):
        return None
    shown = [tables.table_3(section), field_table(section)]
    return Analysis("size", "By object size", [], shown, _charts(section, folder))


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


def _charts(section: Section, folder: Path) -> list[Picture]:
    groups = tenths(section.identity.area_fraction)
    shown = range(groups.index.max() + 1)
    groups = Groups([label.removesuffix("%").replace("-", "–") for label in groups.labels], groups.index)
    charts = []
    for relative in (False, True):
        data = bin_figures.bin_lines(section, groups, shown, "object size, % of the image", relative)
        if not data.lines:
            continue
        file = f"figures/bins{'-change' if relative else ''}-{section.slug}.png"
        bin_figures.draw(data, folder / file)
        charts.append(Picture(file, f"{data.title} by size bin for {names(data)}.", caption(relative, "object size")))
    return charts


def names(data: bin_figures.BinLines) -> str:
    """The runs of a chart, for who cannot see it."""
    return ", ".join(line.label for line in data.lines) + "; the numbers are in the table above"


def caption(relative: bool, axis: str) -> str:
    """What stands below a chart of lines over groups."""
    said = (
        f"Change of mean MSE against doing nothing, by {axis}. Above the dashed line the model does harm."
        if relative
        else f"Mean MSE by {axis}; dashed: doing nothing."
    )
    return f"{said} Bars: 95 % intervals. Hollow: fewer than {figures.FEW_IMAGES} images."
