"""The distributions of MSE, PSNR and LPIPS over the images, as in the paper's figure 4, and of the change."""

from pathlib import Path

from nrh_dist.report import figures
from nrh_dist.report.parts import Picture
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis

CAPTIONS = {
    "change": "What each model did to each image. Blue: error lowered; orange: raised; grey: about the same.",
    "mse": f"Error of each image, values below {figures.LOWEST_MSE:g} drawn there. Dot: median; bar: quartiles.",
    "psnr": "PSNR of each image. Dot: median; bar: quartiles.",
    "lpips": "LPIPS of each image, lower is better. Dot: median; bar: quartiles.",
}


def analyse(section: Section, folder: Path) -> Analysis | None:
    """None where no image has any value."""
    charts = []
    for quantity, caption in CAPTIONS.items():
        ridges = figures.ridges(section, quantity)
        if not ridges.rows:
            continue
        file = f"figures/{quantity}-{section.slug}.png"
        figures.draw_ridges(ridges, folder / file)
        notes = "; ".join(f"{row.label}: {row.note}" for row in ridges.rows)
        charts.append(Picture(file, f"Histograms of {ridges.title} by model. {notes}.", caption))
    return Analysis("distributions", "Distributions", charts=charts) if charts else None
