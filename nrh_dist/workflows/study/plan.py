"""How much of a study fits into a budget: resolution, width, epochs, seeds and trials, from measured steps.

What is cut, and why, is part of the plan and of the report.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from nrh_dist import config as configuration
from nrh_dist.data.processes import ordered_map
from nrh_dist.engine.cost import GFLOP, costs
from nrh_dist.engine.progress import Say, duration
from nrh_dist.schema import Config
from nrh_dist.workflows.plan import Cost, measured
from nrh_dist.workflows.study.recipes import ABLATIONS, CONTROLS, RATES, SYSTEMS, Recipe

MOST_EPOCHS, LEAST_EPOCHS = 50, 10  # the paper's; fewer than the least, and something else is cut first
RATE_SHARE = 5  # a trial of a learning rate is this part of a training
DETECTOR_EPOCHS = 20  # of each stage, at most
BATCH = 32
OWN_COST = ("gated-unfrozen", "gated-pixels", "gated-fused")  # ablations whose steps cost something else than gated's
DETECTOR_STEP = 2.5  # steps of a ptc_dih whose encoder learns: two or three pictures instead of one, and no harmoniser
START = 12.0  # seconds for a training's process on two cores
OVERHEAD = 240.0  # seconds for data, Ray, evaluations and the report


@dataclass(frozen=True)
class Scale:
    """Side of the images in pixels, and the width of all networks (1: the paper)."""

    size: int
    width: float

    @property
    def words(self) -> tuple[str, ...]:
        """As configuration keys. Only the paper's own scale has its SpatialDropout."""
        preset = "paper" if self == SCALES[-1] else "tiny"
        return (f"preset={preset}", f"data.size={self.size}", f"model.width={self.width}", f"train.batch_size={BATCH}")


SCALES = (Scale(64, 0.25), Scale(64, 0.5), Scale(128, 0.5), Scale(256, 1.0))


@dataclass(frozen=True)
class Plan:
    """What is trained. ``cuts`` are sentences; ``seconds`` is what it should take, 0 where nobody asked."""

    scale: Scale = SCALES[-1]
    epochs: int = MOST_EPOCHS
    seeds: int = 3
    control_seeds: int = 3
    ablation_seeds: int = 3
    trials: int = 24
    composites: int = 20_000
    skipped: tuple[str, ...] = ()
    cuts: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def controls(self) -> tuple[Recipe, ...]:
        """The controls that need a training of their own."""
        return CONTROLS if self.control_seeds else ()

    @property
    def ablations(self) -> tuple[Recipe, ...]:
        """The ablations that are left."""
        kept = tuple(one for one in ABLATIONS if one.name not in self.skipped)
        return kept if self.ablation_seeds else ()

    def seeds_of(self, recipe: Recipe) -> int:
        """How many seeds ``recipe`` is trained with."""
        if recipe in CONTROLS:
            return self.control_seeds
        return self.ablation_seeds if recipe in ABLATIONS else self.seeds

    @property
    def rate_epochs(self) -> int:
        """Of a trial of a learning rate, and of the longest one of the sweep twice as many."""
        return max(1, self.epochs // RATE_SHARE)

    @property
    def sweep_epochs(self) -> int:
        """Of the longest trial of the sweep."""
        return max(1, 2 * self.rate_epochs)

    @property
    def detector_epochs(self) -> int:
        """Of each stage of the detector."""
        return min(DETECTOR_EPOCHS, self.epochs)


NO_ABLATIONS = "no ablations"
# What goes first when time is short; each keeps the cuts before it.
CUTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ablations with two seeds instead of three", {"ablation_seeds": 2}),
    ("controls with two seeds instead of three", {"control_seeds": 2}),
    ("a sweep of 12 trials instead of 24", {"trials": 12}),
    ("a sweep of 6 trials instead of 24", {"trials": 6}),
    ("ablations with one seed instead of three", {"ablation_seeds": 1}),  # of one seed, nothing is claimed
    ("controls with one seed instead of three", {"control_seeds": 1}),
    ("no ablation with an encoder that learns", {"skipped": ("gated-unfrozen",)}),
    (NO_ABLATIONS, {"ablation_seeds": 0}),
    ("no controls that need a training", {"control_seeds": 0}),
)


@dataclass(frozen=True)
class Costs:
    """Seconds at one scale: of each recipe's step and validation batch; ``slots`` trainings run at once."""

    by_recipe: Mapping[str, Cost]
    detector: float  # of a step of the detector, both stages alike
    slots: int
    images: Mapping[str, int] = field(default_factory=dict)  # train, val, objects, test


def estimate(plan: Plan, costs: Costs) -> float:
    """The seconds that ``plan`` should take."""
    train, val = _batches(costs.images["train"]), _batches(costs.images["val"])

    def runs(recipes: Sequence[Recipe], epochs: int, seeds: int) -> float:
        one = (costs.by_recipe[recipe.name] for recipe in recipes)
        learning = [epochs * (train * cost.step + val * cost.validation) + START for cost in one]
        return seeds * sum(learning)

    learners = [one for one in SYSTEMS if not one.has_harmoniser_part]
    gated = [one for one in SYSTEMS if one.name == "gated"]
    total = runs(learners, plan.epochs, plan.seeds) + runs(gated, plan.epochs, plan.seeds)  # unswept, and swept
    total += runs(learners, plan.rate_epochs, len(RATES))
    total += runs(gated, plan.sweep_epochs, plan.trials) / 2  # early stopping
    total += runs(plan.controls, plan.epochs, plan.control_seeds)
    total += runs(plan.ablations, plan.epochs, plan.ablation_seeds)
    detectors = 2 if plan.ablation_seeds else 1
    total += 2 * detectors * (plan.detector_epochs * _batches(costs.images["objects"]) * costs.detector + START)
    scored = (len(learners) + 4) * plan.seeds + len(plan.controls) * plan.control_seeds
    scored += len(plan.ablations) * plan.ablation_seeds
    mean = sum(cost.validation for cost in costs.by_recipe.values()) / len(costs.by_recipe)
    total += _batches(costs.images["test"]) * scored * mean
    return total / costs.slots + OVERHEAD


def fit(plan: Plan, by_scale: Mapping[Scale, Costs], seconds: float, epochs: int | None = None) -> Plan:
    """``plan`` at the largest scale, with the fewest cuts and then the most epochs, that fits into ``seconds``.

    Completeness comes before resolution. Where not even the least plan fits, it is made of fewer epochs; ``epochs``,
    if given, are neither less nor more.
    """
    scales = sorted(by_scale, key=lambda one: (one.size, one.width), reverse=True)
    for level in range(len(CUTS) + 1):
        changes = {key: value for _, change in CUTS[:level] for key, value in change.items()}
        cuts = _named(level)
        for scale in scales:
            least = replace(plan, scale=scale, epochs=epochs or LEAST_EPOCHS, **changes)
            if estimate(least, by_scale[scale]) <= seconds:
                return _filled(replace(least, cuts=cuts), by_scale[scale], seconds, epochs)
    least = replace(plan, scale=scales[-1], cuts=_named(len(CUTS)), **changes)
    return _filled(least, by_scale[scales[-1]], seconds, epochs)


def _named(level: int) -> tuple[str, ...]:
    """The cuts that count: a later one on the same number replaces an earlier one."""
    said: dict[str, str] = {}
    for text, change in CUTS[:level]:
        for key in change:
            said[key] = text
    if said.get("ablation_seeds") == NO_ABLATIONS:
        del said["skipped"]
    return tuple(dict.fromkeys(said.values()))


def _filled(plan: Plan, costs: Costs, seconds: float, epochs: int | None) -> Plan:
    """``plan`` with the most epochs that fit, at least one, and the cuts that follow from the scale told."""
    epochs = epochs or next(
        (n for n in range(MOST_EPOCHS, 1, -1) if estimate(replace(plan, epochs=n), costs) <= seconds), 1
    )
    full, cuts = SCALES[-1], list(plan.cuts)
    if plan.scale != full:
        cuts.insert(0, f"{plan.scale.size} px and width {plan.scale.width:g} instead of {full.size} px and width 1")
    if plan.composites < Plan().composites:
        cuts.insert(0, f"{plan.composites:,} composites instead of {Plan().composites:,}")
    if epochs < MOST_EPOCHS:
        cuts.insert(0, f"{epochs} epochs instead of {MOST_EPOCHS}")
    chosen = replace(plan, epochs=epochs, cuts=tuple(cuts))
    return replace(chosen, seconds=estimate(chosen, costs))


def by_scale(
    measure: Callable[[Scale], Costs], plan: Plan, seconds: float, say: Say, only: Scale | None = None
) -> dict[Scale, Costs]:
    """Measured costs, from the smallest scale up, as long as the next one may fit by its number of operations.

    ``only``: of this scale, whether it fits or not.
    """
    if only:
        return {only: measure(only)}
    found: dict[Scale, Costs] = {}
    last: Costs | None = None
    for before, scale in zip((None, *SCALES), SCALES, strict=False):
        if before and last:
            ratio = _operations(scale) / _operations(before)
            least = estimate(replace(plan, scale=scale, epochs=1, ablation_seeds=0, control_seeds=0), last) * ratio
            if least > seconds:
                say(f"{scale.size} px, width {scale.width:g}: not measured, it would not fit the budget")
                break
        found[scale] = last = measure(scale)
        least = estimate(replace(plan, scale=scale), last)
        say(f"{scale.size} px, width {scale.width:g}: the whole study would take {duration(least)}")
    return found


def pinned(words: Sequence[str]) -> tuple[int | None, Scale | None]:
    """Epochs and scale, as far as ``words`` say them: then the plan has no choice. ``UserError`` for a bad word."""
    given = {word.partition("=")[0] for word in words}
    config = configuration.load(None, ["model.name=dih_m", *words])
    epochs = config.train.epochs if "train.epochs" in given else None
    scale = Scale(config.data.size, config.model.width) if {"data.size", "model.width"} & given else None
    return epochs, scale


def measure(scale: Scale, slots: int, images: Mapping[str, int], words: Sequence[str]) -> Costs:
    """Steps of all recipes at ``scale`` with ``words``, each in a process, as many side by side as will train so."""
    recipes = {one.name: one for one in (*SYSTEMS, *CONTROLS, *ABLATIONS) if not one.has_harmoniser_part}
    distinct = [one.name for one in SYSTEMS if not one.has_harmoniser_part] + [*OWN_COST]
    configs = [config_of(recipes[name], scale, *words) for name in distinct]
    configs.append(config_of(recipes["ptc_dih"], scale, *words, "model.freeze=none"))  # as the detector learns
    *found, detector = ordered_map(measured, configs, slots)
    known = dict(zip(distinct, found, strict=True))
    by_recipe = {name: known.get(name) or known[recipes[name].rate_of] for name in recipes}
    return Costs(by_recipe, DETECTOR_STEP * detector.step, slots, images)


def config_of(recipe: Recipe, scale: Scale, *more: str) -> Config:
    """The configuration of a recipe at a scale, without what it starts from."""
    return configuration.load(None, [*scale.words, *recipe.words, "track.wandb=disabled", *more])


@cache
def _operations(scale: Scale) -> float:
    return sum(costs(config_of(recipe, scale))[GFLOP] for recipe in SYSTEMS)


def _batches(images: int) -> int:
    return math.ceil(images / BATCH)
