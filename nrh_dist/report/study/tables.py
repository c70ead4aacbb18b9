"""The tables of a study's page, and the CSV files with every number by model and seed."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nrh_dist.report.bootstrap import Estimate
from nrh_dist.report.shown import Column, Row, Table
from nrh_dist.report.statistics import WORSE1, is_worse, mean
from nrh_dist.report.study import compare
from nrh_dist.report.study.collect import CONTROLS, IDENTITY, MASKED, TESTS, Study, System, Test
from nrh_dist.report.study.compare import Difference, Group

BY_SEED = ("set", "group", "model", "seed", "images", "mse", "psnr", "fmse", "worse1", "identity_mse")


def of_means(study: Study, test: Test) -> Table:
    """The paper's Table 2 of one test: every system, its seeds, its interval."""
    columns = [
        Column("mse", "MSE"),
        Column("mse_low", "95 % from", "MSE"),
        Column("mse_high", "to", "MSE"),
        Column("mse_seed_low", "lowest", "MSE of a seed"),
        Column("mse_seed_high", "highest", "MSE of a seed"),
        Column("psnr", "PSNR, dB"),
        Column("fmse", "fMSE", decimals=1),
        Column("worse1_percent", "%", "made worse by > 1", 1),
        Column("worse1_high", "to", "made worse by > 1", 1),
        Column("seeds", "seeds", decimals=0),
    ]
    rows = []
    for name in study.main:
        system = test.systems[name]
        estimate, worse = compare.mean(test, system.mean_mse), compare.worse1(test, system).scaled(100)
        by_seed = [mean(values) for values in system.mse]
        psnr, fmse = mean(system.psnr.mean(axis=0)), mean(system.fmse.mean(axis=0))
        is_identity = name == IDENTITY
        spread = [float("nan")] * 2 if is_identity else [min(by_seed), max(by_seed)]
        shares = [float("nan")] * 2 if is_identity else [worse.value, worse.bounds[1]]
        values = [estimate.value, *estimate.bounds, *spread, psnr, fmse, *shares, 0 if is_identity else len(by_seed)]
        rows.append(Row(study.label(name), values, model=name))
    caption = f"{TESTS[test.name]}: {len(test.identity):,} composites of {_photos(test)} photos at {test.size} px"
    return Table(f"means-{test.name}", caption, columns, rows)


def of_groups(study: Study, test: Test, name: str, groups: Sequence[Group], what: str) -> Table:
    """MSE, and its difference to doing nothing with its interval: a row a group and system."""
    columns = [
        Column("mse", "MSE"),
        Column("difference", "mean", "MSE − MSE of the input"),
        Column("low", "95 % from", "MSE − MSE of the input"),
        Column("high", "to", "MSE − MSE of the input"),
    ]
    rows = []
    for group in groups:
        shown_as = f"{group.name}: {int(group.chosen.sum())} composites, {group.photos} photos"
        for system in study.main if group.photos else ():
            own = test.systems[system].mean_mse
            change = compare.mean(test, own - test.identity, group.chosen)
            known = [float("nan")] * 3 if system == IDENTITY else [change.value, *change.bounds]
            rows.append(Row(study.label(system), [mean(own[group.chosen]), *known], group=shown_as, model=system))
    unjudged = [group.name for group in groups if not group.is_judged]
    notes = []
    if unjudged:
        notes.append(f"Fewer than {compare.FEWEST_JUDGED} photos, shown and not judged: {', '.join(unjudged)}.")
    return Table(f"{name}-{test.name}", f"{TESTS[test.name]}: MSE by {what}", columns, rows, notes)


def of_categories(study: Study, test: Test) -> Table:
    """The macro average over categories."""
    columns = [Column("macro_mse", "MSE"), Column("low", "95 % from"), Column("high", "to")]
    rows = []
    for name in study.main:
        found = compare.macro(test, test.systems[name])
        rows.append(Row(study.label(name), [found.value, *found.bounds], model=name))
    caption = f"{TESTS[test.name]}: mean over the {len(set(test.category) - {''})} categories of each one's mean MSE"
    return Table(f"macro-{test.name}", caption, columns, rows)


def of_differences(study: Study, test: Test, name: str, caption: str, found: Sequence[Difference]) -> Table:
    """Paired differences with corrected intervals, and whether they may be claimed."""
    seeds = max((len(one.by_seed) for one in found), default=0)
    columns = [
        Column("difference", "mean"),
        Column("low", "corrected, from"),
        Column("high", "to"),
        *(Column(f"seed_{seed}", f"seed {seed}") for seed in range(seeds)),
        Column("p_holm", "p, Holm", decimals=4),
        Column("claimed", "claimed", decimals=0),
    ]
    rows = []
    for one in found:
        by_seed = [*one.by_seed, *[float("nan")] * (seeds - len(one.by_seed))]
        label = f"{study.label(one.one)} − {study.label(one.other)}"
        rows.append(Row(label, [one.value, *one.interval, *by_seed, one.p, one.holds], model=one.one))
    notes = [
        "Claimed: −1 the first is better, 1 worse, 0 neither: the corrected interval holds 0, the seeds disagree, or "
        "there is one seed alone."
    ]
    return Table(f"{name}-{test.name}", f"{TESTS[test.name]}: {caption}", columns, rows, notes)


def of_controls(study: Study) -> Table:
    """What systems do to inputs that need no change: the share that they change by more than 1 MSE."""
    test = study.controls
    columns = [
        Column(f"{subset}_{key}", title, subset)
        for subset in _subsets(test)
        for key, title in (("changed", "changed by > 1, %"), ("low", "95 % from"), ("high", "to"), ("mse", "mean MSE"))
    ]
    rows = []
    for name in study.main:
        if name in MASKED:
            continue
        values: list[float] = []
        for subset in _subsets(test):
            chosen = test.datasets == subset
            system = test.systems[name]
            share = compare.mean(test, (system.mse > WORSE1).mean(axis=0), chosen).scaled(100)
            values += [share.value, *share.bounds, mean(system.mean_mse[chosen])]
        rows.append(Row(study.label(name), values, model=name))
    caption = "Photos that need no change: untouched, and with an object put back that is a JPEG of itself"
    return Table(CONTROLS, caption, columns, rows)


def of_costs(study: Study) -> Table:
    """How long trainings took on the machine of the study, for what it is worth."""
    columns = [Column("runs", "trainings", decimals=0), Column("hours", "hours in all")]
    names = dict.fromkeys(curve.system for curve in study.curves)
    rows = []
    for name in names:
        hours = [curve.hours for curve in study.curves if curve.system == name]
        rows.append(Row(study.label(name), [len(hours), sum(hours)], model=name))
    return Table("costs", "Time that trainings took, several side by side", columns, rows)


def write_by_seed(study: Study, path: Path) -> None:
    """Every system, also controls and ablations, by test, group and seed."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(BY_SEED)
        for test in (*study.tests.values(), study.controls):
            for group, chosen in _all_groups(test):
                for system in test.systems.values():
                    writer.writerows(_by_seed(test, group, chosen, system))


def write_curves(study: Study, path: Path) -> None:
    """val/mse by model, seed and epoch."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("model", "seed", "epoch", "val_mse", "identity_val_mse"))
        for curve in study.curves:
            for epoch, value in enumerate(curve.val_mse, start=1):
                writer.writerow((curve.system, curve.seed, epoch, f"{value:.4f}", f"{curve.identity_mse:.4f}"))


def _all_groups(test: Test) -> list[tuple[str, np.ndarray]]:
    everything = [("all", np.ones(len(test.identity), bool))]
    if test.name == CONTROLS:
        return [(subset, test.datasets == subset) for subset in _subsets(test)]
    groups = [*compare.size_groups(test), *compare.category_groups(test)]
    return everything + [(group.name, group.chosen) for group in groups]


def _by_seed(test: Test, group: str, chosen: np.ndarray, system: System) -> list[list[object]]:
    rows: list[list[object]] = []
    for place, seed in enumerate(system.seeds):
        mse = system.mse[place, chosen]
        worse = float(is_worse(mse, test.identity[chosen]).mean()) if chosen.any() else float("nan")
        numbers = [mean(mse), mean(system.psnr[place, chosen]), mean(system.fmse[place, chosen]), worse]
        numbers.append(mean(test.identity[chosen]))
        named = "" if system.name == IDENTITY else seed
        rows.append([test.name, group, system.name, named, int(chosen.sum()), *(f"{value:.6f}" for value in numbers)])
    return rows


def _subsets(test: Test) -> list[str]:
    return list(dict.fromkeys(test.datasets.tolist()))


def _photos(test: Test) -> int:
    return len(np.unique(test.photos))


def shown(estimate: Estimate, decimals: int = 2) -> str:
    """A value with its interval, as a sentence has it."""
    low, high = estimate.bounds
    interval = f"{low:,.{decimals}f} to {high:,.{decimals}f}" if estimate.interval else "no interval"
    return f"{estimate.value:,.{decimals}f} ({interval})".replace("-", "−")
