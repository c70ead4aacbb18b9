from dataclasses import replace
from pathlib import Path

import pytest

from nrh_dist.errors import UserError
from nrh_dist.workflows.plan import Cost
from nrh_dist.workflows.study import plan as planning
from nrh_dist.workflows.study.data import Photos
from nrh_dist.workflows.study.plan import LEAST_EPOCHS, MOST_EPOCHS, SCALES, Costs, Plan, Scale, by_scale, estimate, fit
from nrh_dist.workflows.study.recipes import ABLATIONS, CONTROLS, GATED, RATES, SYSTEMS
from nrh_dist.workflows.study.study import study

IMAGES = {"train": 20_000, "val": 2_000, "objects": 5_000, "test": 3_000}


def costs(step: float, unfrozen: float = 1.0) -> Costs:
    recipes = [one.name for one in (*SYSTEMS, *CONTROLS, *ABLATIONS) if one.name != "two_stage"]
    by_recipe = {
        name: Cost(step * (unfrozen if name == "gated-unfrozen" else 1), step / 3, 0, "cpu") for name in recipes
    }
    return Costs(by_recipe, 3 * step, 2, IMAGES)


BY_SCALE = {scale: costs(0.01 * 8**number) for number, scale in enumerate(SCALES)}


@pytest.mark.parametrize("hours", [0.1, 0.5, 2, 8, 30, 200, 5000])
def test_a_plan_fits_its_budget_as_long_as_anything_does(hours):
    plan = fit(Plan(), BY_SCALE, 3600 * hours)
    assert plan.seconds == estimate(plan, BY_SCALE[plan.scale])
    assert plan.seconds <= 3600 * hours or plan.epochs == 1
    if plan.epochs < MOST_EPOCHS and plan.seconds <= 3600 * hours:
        assert estimate(replace(plan, epochs=plan.epochs + 1), BY_SCALE[plan.scale]) > 3600 * hours


def test_more_time_never_gives_less():
    plans = [fit(Plan(), BY_SCALE, 3600.0 * 2**power) for power in range(-3, 13)]
    trainings = [len(one.ablations) * one.ablation_seeds + one.control_seeds + one.trials for one in plans]
    assert trainings == sorted(trainings) and trainings[0] < trainings[-1]
    assert plans[-1] == replace(Plan(), seconds=plans[-1].seconds) and not plans[-1].cuts


def test_what_is_cut_is_said():
    plan = fit(Plan(), BY_SCALE, 3600 * 0.5)
    assert any("epochs instead of 50" in cut for cut in plan.cuts)
    assert any("px and width" in cut for cut in plan.cuts)
    assert sum("trials" in cut for cut in plan.cuts) <= 1, "a later cut of one number replaces the earlier"
    assert plan.seeds == 3


def test_completeness_comes_before_resolution():
    """Time for everything at the smallest scale, and for less of it at the next one."""
    seconds = estimate(replace(Plan(), scale=SCALES[0], epochs=LEAST_EPOCHS), BY_SCALE[SCALES[0]])
    plan = fit(Plan(), BY_SCALE, seconds)
    assert plan.scale == SCALES[0] and plan.ablation_seeds == plan.control_seeds == 3


def test_an_ablation_that_costs_too_much_goes_by_itself():
    dear = {SCALES[0]: costs(0.01, unfrozen=60)}
    without = replace(Plan(), scale=SCALES[0], epochs=LEAST_EPOCHS, ablation_seeds=1, control_seeds=1, trials=6)
    enough = estimate(replace(without, skipped=("gated-unfrozen",)), dear[SCALES[0]])
    plan = fit(Plan(), dear, enough)
    assert plan.skipped == ("gated-unfrozen",) and len(plan.ablations) == len(ABLATIONS) - 1


def test_steps_are_measured_as_they_will_be_taken(monkeypatch):
    """Words of the study count: what is compiled takes other steps."""
    seen = []

    def ordered_map(function, configs, slots):
        seen.extend(configs)
        return [Cost(0.1, 0.1, 0, "cpu") for _ in configs]

    monkeypatch.setattr(planning, "ordered_map", ordered_map)
    found = planning.measure(SCALES[0], 2, IMAGES, ["speed.channels_last=true"])
    assert {*found.by_recipe} == {*BY_SCALE[SCALES[0]].by_recipe}
    assert seen and all(one.speed.channels_last for one in seen)


def test_larger_scales_are_measured_as_long_as_they_may_fit():
    measured = []

    def measure(scale):
        measured.append(scale)
        return BY_SCALE[scale]

    said = []
    found = by_scale(measure, Plan(), 3600, said.append)
    assert [*found] == measured and measured[0] == SCALES[0] and len(measured) < len(SCALES)
    assert any("not measured" in line for line in said)
    assert [*by_scale(measure, Plan(), 1e9, said.append)] == [*SCALES]


def test_every_recipe_is_a_configuration_that_differs_in_what_it_says():
    recipes = (*SYSTEMS, *CONTROLS, *ABLATIONS)
    configs = {}
    for one in recipes:
        configs[one.name] = planning.config_of(one, SCALES[0], "data.val_fraction=0")
        assert one.rate_of in {system.name for system in SYSTEMS}
        assert bool(one.differs) == (one not in SYSTEMS)
    gated = configs["gated"]
    for one in ABLATIONS:
        assert configs[one.name] != gated or one.detector != SYSTEMS[-1].detector
    assert len(GATED) == 4 and len(RATES) == 4


def test_what_the_words_say_is_not_for_the_plan_to_choose():
    assert planning.pinned(["optim.eps=1e-7"]) == (None, None)
    assert planning.pinned(["train.epochs=3", "data.size=128", "model.width=0.5"]) == (3, Scale(128, 0.5))
    only = Scale(128, 0.5)
    assert [*by_scale(lambda scale: BY_SCALE[scale], Plan(), 1, lambda _: None, only)] == [only]
    plan = fit(Plan(), {only: BY_SCALE[only]}, 3600 * 100, epochs=3)
    assert (plan.epochs, plan.scale) == (3, only) and "3 epochs instead of 50" in plan.cuts
    assert len(plan.cuts) < len(fit(Plan(), {only: BY_SCALE[only]}, 3600, epochs=3).cuts)


@pytest.mark.parametrize(
    ("photos", "words", "expected"),
    [
        (Photos(Path("nowhere")), [], "nowhere must hold train2017/"),
        (Photos(None, (Path("nowhere"),)), [], "nowhere must hold images/"),
        (Photos(), ["train.epochs=0"], "at least 1"),
        (Photos(), ["optim.rate=1"], "optim"),
    ],
)
def test_a_mistake_is_told_before_anything_is_made(tmp_path, photos, words, expected):
    with pytest.raises(UserError, match=expected):
        study(tmp_path / "out", photos, 10, words, print)
    assert not (tmp_path / "out").exists()
