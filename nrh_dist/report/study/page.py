"""``README.md`` of a study: what was asked and found, and how each number was made; plots and CSV files beside it."""

import os
import shlex
import shutil
from collections.abc import Sequence
from math import isnan
from pathlib import Path

import numpy as np

from nrh_dist.report import files, table_files
from nrh_dist.report.shown import Table
from nrh_dist.report.statistics import MOST_WORSE, WORSE1, is_worse
from nrh_dist.report.study import compare, figures, risk, tables
from nrh_dist.report.study.collect import IDENTITY, TESTS, Study, Test, read
from nrh_dist.report.study.compare import LEVEL, Difference

PAGE, RECORDS = "README.md", ("study.json", "risk.csv")
BEST = "gated_swept_calibrated"
NO_WAY = "DIH-M itself is not better than both"
PROTOCOL = (
    "MSE on the 0..255 scale, the prediction clamped and not rounded, all pixels and channels; PSNR with peak 255; per "
    "image, then the mean over seeds, then over images. Intervals: 95 %, bootstrap over photos."
)


def write(folder: Path, out: Path) -> Path:
    """Read the study in ``folder``, write page, plots, CSV files and its records to ``out``, and return the page.

    What was in ``out`` is replaced as a whole. ``UserError`` where it is no finished study, or ``out`` cannot be
    written to: then ``out`` is as it was.
    """
    study = read(folder)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        with files.explained():
            partial.mkdir(parents=True)
            parts = [*_head(study), *_verdicts(study), *_results(study, partial), *_method(study)]
            tables.write_by_seed(study, partial / "by_seed.csv")
            tables.write_curves(study, partial / "learning.csv")
            for name in RECORDS:
                shutil.copyfile(folder / name, partial / name)
            files.write_text(partial / PAGE, "\n\n".join(parts) + "\n")
            files.install(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out / PAGE


def _head(study: Study) -> list[str]:
    about = study.about
    plan, scale = about["plan"], about["plan"]["scale"]
    cuts = "; ".join(plan["cuts"]) or "nothing"
    made = ", ".join(f"{count:,} {name}" for name, count in about["data"]["composites"].items())
    return [
        "# Is a mask-free harmoniser better than doing nothing?",
        f"All systems learned from the same composites of {about['data']['photos']} "
        f"({', '.join(about['data']['sources'])}) at {scale['size']} px, width {scale['width']:g} (1 is the paper's), "
        f"{plan['epochs']} epochs, {plan['seeds']} seeds each. Composites: {made}.",
        f"Cut to fit the budget: {cuts}.",
        _shell([about["command"]]),
        f"Version {about['version']}, by commit {', '.join(str(one) for one in about['commits'])}, begun "
        f"{about['began']}, ended {about['ended']}. {PROTOCOL}",
    ]


def _verdicts(study: Study) -> list[str]:
    lines = ["## What was found"]
    for test in study.tests.values():
        lines.append(f"**{TESTS[test.name]}**")
        lines.append("\n".join(f"* {line}" for line in [*_ordering_lines(study, test), *_goal_lines(study, test)]))
    return lines


def _ordering_lines(study: Study, test: Test) -> list[str]:
    """The paper's ordering, pair by pair, and whether all of it is confirmed."""
    found = compare.ordering(test)
    held = [one for one in found if one.holds == -1]
    turned = [one for one in found if one.holds == 1]
    word = "confirmed" if len(held) == len(found) else "not confirmed"
    order = "DIH-NM worst, PTC-att-DIH, PTC-DIH, DIH-M best"
    text = f"The paper's ordering ({order}) is {word}: {len(held)} of {len(found)} pairs hold"
    if turned:
        text += ", the other way round: " + ", ".join(
            f"{study.label(one.one)} worse than {study.label(one.other)}" for one in turned
        )
    lines = [text + "."]
    better: list[str] = []
    worse: list[str] = []
    for one in compare.against_identity(test, [name for name in study.main if name != IDENTITY]):
        (better if one.holds == -1 else worse if one.holds == 1 else []).append(study.label(one.one))
    lines.append(
        f"Better than doing nothing in MSE: {', '.join(better) or 'none'}; worse: {', '.join(worse) or 'none'}."
    )
    return lines


def _goal_lines(study: Study, test: Test) -> list[str]:
    """The goals for the model that people would apply blindly.

    Each is reached where the bound of the mean over seeds says so, and every seed by itself has such a value.
    """
    system, label = test.systems[BEST], study.label(BEST)
    change, psnr_gain = system.mse - test.identity, system.psnr - test.systems[IDENTITY].psnr[0]
    judged = [group for group in compare.size_groups(test) if group.is_judged]
    missed = [
        group.name
        for group in judged
        if compare.mean(test, change.mean(axis=0), group.chosen).bounds[1] >= 0
        or (change[:, group.chosen].mean(axis=1) >= 0).any()
    ]
    psnr, psnr_by_seed = compare.mean(test, psnr_gain.mean(axis=0)), psnr_gain.mean(axis=1)
    worse = compare.worse1(test, system).scaled(100)
    worse_by_seed = 100 * is_worse(system.mse, test.identity).mean(axis=1)
    closed = compare.share_closed(test, system.mean_mse)
    closed_by_seed = np.array([compare.share_closed(test, mse).value for mse in system.mse])
    return [
        f"{label}, MSE below the input's in every judged bin of size (upper end of the interval below 0): "
        + _verdict(not missed, f"not in {', '.join(missed)}" if missed else f"in all {len(judged)}"),
        f"{label}, PSNR above the input's (lower end): "
        + _verdict(
            psnr.bounds[0] > 0 and (psnr_by_seed > 0).all(),
            f"{tables.shown(psnr, 3)} dB; by seed {_listed(psnr_by_seed, 3)}",
        ),
        f"{label}, made worse by > {WORSE1:g} in at most {100 * MOST_WORSE:g} % (upper end): "
        + _verdict(
            worse.bounds[1] <= 100 * MOST_WORSE and (worse_by_seed <= 100 * MOST_WORSE).all(),
            f"{tables.shown(worse, 1)} %; by seed {_listed(worse_by_seed, 1)}",
        ),
        f"{label}, at least half of the way from the better of input and DIH-NM to DIH-M (lower end): "
        + _verdict(
            closed.bounds[0] >= 0.5 and (closed_by_seed >= 0.5).all(),
            NO_WAY if isnan(closed.value) else f"{tables.shown(closed)} of it; by seed {_listed(closed_by_seed, 2)}",
        ),
    ]


def _verdict(is_reached: bool | np.bool, detail: str) -> str:
    return f"{'reached' if is_reached else '**not reached**'} ({detail})."


def _listed(values: np.ndarray, decimals: int) -> str:
    return ", ".join(f"{value:,.{decimals}f}" for value in values).replace("-", "−")


def _results(study: Study, out: Path) -> list[str]:
    parts = ["## Systems"]
    for test in study.tests.values():
        parts.append(_table(tables.of_means(study, test), out))
    parts += ["## By size of the object"]
    figures.draw_sizes(study, out / "sizes.png")
    parts.append("![MSE of each system minus MSE of the input, by size of the object, with intervals](sizes.png)")
    for test in study.tests.values():
        parts.append(
            _table(tables.of_groups(study, test, "sizes", compare.size_groups(test), "size of the object"), out)
        )
    parts += ["## By category"]
    for test in study.tests.values():
        if (test.category != "").any():
            parts.append(
                _table(tables.of_groups(study, test, "person", compare.category_groups(test), "category"), out)
            )
            parts.append(_table(tables.of_categories(study, test), out))
    parts += ["## Differences that may be claimed"]
    systems = [name for name in study.main if name != IDENTITY]
    for test in study.tests.values():
        parts.append(
            _differences(study, test, "ordering", "the paper's systems against each other", compare.ordering(test), out)
        )
        found = compare.against_identity(test, systems)
        parts.append(_differences(study, test, "identity", "every system against doing nothing", found, out))
    parts += ["## Risk against coverage"]
    figures.draw_risk(study, out / "risk.png")
    parts.append("![Share of images that are changed, against the share made worse and the gain](risk.png)")
    parts.append(
        "Above, each point is a threshold of the gate, from 0 (right) to 0.9. Below, a system leaves alone what it "
        "would change least in mean square: a model of least squared error changes as much as it expects to gain. "
        f"Means over seeds; dotted: the goal of {100 * MOST_WORSE:g} %. DIH-M is given the mask, the others are not."
    )
    parts += [_table(risk.table(study, test), out) for test in study.tests.values()]
    parts += ["## Inputs that need no change", _table(tables.of_controls(study), out)]
    parts += _controls(study, out) + _ablations(study, out)
    parts += ["## Learning and cost"]
    figures.draw_learning(study, out / "learning.png")
    parts.append("![val/mse after each epoch, mean and range of the seeds](learning.png)")
    parts.append(_table(tables.of_costs(study), out))
    return parts


def _controls(study: Study, out: Path) -> list[str]:
    """Each control against what it differs from in one thing."""
    parts = []
    for test in study.tests.values():
        names = [name for name in test.systems if name.rpartition("-")[0] in ("dih_nm", "ptc_dih", "dih_m")]
        pairs = [(name, name.rpartition("-")[0]) for name in names]
        if pairs:
            found = compare.differences(test, pairs)
            parts.append(_differences(study, test, "control", "controls against what they control", found, out))
    return ["## Controls", *parts] if parts else []


def _ablations(study: Study, out: Path) -> list[str]:
    """Each ablation against ``gated`` as it was trained, unswept and uncalibrated."""
    names = [name for name in next(iter(study.tests.values())).systems if name.startswith("gated-")]
    if not names:
        return []
    found = {test.name: compare.differences(test, [(name, "gated") for name in names]) for test in study.tests.values()}
    figures.draw_differences(study, dict(found), out / "ablations.png")
    parts = ["## Ablations", "![MSE of each ablation minus that of gated](ablations.png)"]
    for test in study.tests.values():
        parts.append(_differences(study, test, "ablation", "gated, one ingredient changed", found[test.name], out))
    return parts


def _differences(study: Study, test: Test, name: str, caption: str, found: Sequence[Difference], out: Path) -> str:
    return _table(tables.of_differences(study, test, name, caption, found), out)


def _method(study: Study) -> list[str]:
    about = study.about
    rates = ", ".join(
        _rate(study.label(name), rate, about["rates_tried"][name]) for name, rate in about["rates"].items()
    )
    swept = next(run for run in about["runs"] if run["system"] == "gated_swept")
    commands = [
        f"nrh train {shlex.join([*about['common'], *words])}"
        for system in study.main
        if (words := next((run["words"] for run in about["runs"] if run["system"] == system), None))
    ]
    tried = ", ".join(next(iter(about["rates_tried"].values())))
    made = about["data"]
    share = f"{100 * made['val_fraction']:g} % of the training photos, of those of {made['val_photos']} alone"
    facts = [
        f"Photos were divided into train, val ({share}) and test before any was generated; a photo "
        "and what lends it its colours are of one part. Pairs are drawn by category first. PNG throughout.",
        f"Learning rates: one of {tried} for each system, by a fifth of the epochs and the lowest val/mse "
        f"(chosen: {rates}). The sweep of gated had {about['plan']['trials']} trials more.",
        "The checkpoint with the lowest val/mse is kept. Threshold, strength and least change of a calibrated model "
        "were chosen on val (`nrh calibrate`).",
        "In this study each test was scored once, by `nrh evaluate`, after all choices, and scanned for the risk "
        "curves, by which nothing is chosen. Who plans a study after the results of another on the same tests knows "
        "them: what they show of it then is less than of new photos.",
        "Differences: image by image between runs of the same seed, the mean over seeds, bootstrap over photos "
        f"({compare.DRAWS:,} draws), intervals at {100 * (1 - LEVEL):g} % after Holm over the rows of a table, step by "
        f"step; claimed only where at least {compare.FEWEST_SEEDS} seeds were trained and all agree in sign. A control "
        "or an ablation of one seed is shown, and nothing is claimed of it.",
        "One detector for all systems and seeds: what seeds vary is the harmoniser's training.",
        "Two-stage and the rows with the true mask are made of DIH-M's runs.",
    ]
    use = [
        f"nrh export {about['out']}/calibrated/{BEST}-seed0 -o model.onnx",
        "nrh harmonise PHOTO -o OUT --checkpoint model.onnx",
    ]
    return [
        "## How it was made",
        "\n".join(f"* {fact}" for fact in facts),
        "Trainings as they were called, of the first seed ([study.json](study.json) has all):",
        _shell(commands),
        "The model to apply (its folder holds a model card), as one file that needs no torch:",
        _shell(use),
        f"What the sweep chose: `{' '.join(swept['words'])}`.",
        "What calibration chose on val:",
        "\n".join(f"* {run}: {text}" for run, text in about["calibrated"].items()),
        "Every number by model and seed: [by_seed.csv](by_seed.csv); curves: [learning.csv](learning.csv); of the "
        "gates' thresholds: [risk.csv](risk.csv); plan, words and choices: [study.json](study.json); each table is a "
        "CSV file of its name.",
    ]


def _rate(label: str, chosen: float, tried: dict[str, float | None]) -> str:
    """A learning rate, and whether a better one may lie beyond those that were tried."""
    rates = [float(one) for one in tried]
    beyond = {min(rates): ", the lowest of them", max(rates): ", the highest of them"}.get(chosen, "")
    return f"{label} {chosen:g}{beyond}"


def _shell(commands: Sequence[str]) -> str:
    return "\n".join(["```sh", *commands, "```"])


def _table(table: Table, out: Path) -> str:
    table_files.write_csv(table, out / f"{table.name}.csv")
    return table_files.markdown(table).strip()
