from pathlib import Path

import pytest

from nrh_dist.errors import UserError
from nrh_dist.launch import space
from nrh_dist.launch.schedule import Population

FOLDER = Path(__file__).parents[2] / "search_spaces"
GOOD = """\
metric: val/mse
trials: 6
scheduler: {asha: {max_epochs: 9, grace_epochs: 2, reduction_factor: 3}}
base: {preset: tiny, model.name: gated}
space:
  model.fusion_width: {choice: [0, 32]}
  model.freeze: {choice: [encoder, "encoder_until:10"]}
  optim.lr: {loguniform: [0.0001, 0.01], when: {model.freeze: encoder}}
"""


def read(tmp_path, text=GOOD, words=()):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return space.read(path, list(words))


def test_trials_are_a_function_of_file_and_seed(tmp_path):
    one = read(tmp_path)
    drawn = one.assignments(0)
    assert drawn == read(tmp_path).assignments(0) != one.assignments(1)
    assert len(drawn) == 6
    more = read(tmp_path, GOOD.replace("trials: 6", "trials: 8")).assignments(0)
    assert more[:6] == drawn
    assert all(0.0001 <= one["optim.lr"] <= 0.01 for one in more)


def test_a_trial_is_an_ordinary_configuration(tmp_path):
    one = read(tmp_path, words=["seed=3"])
    config = one.config({"model.fusion_width": 32, "model.freeze": "encoder", "optim.lr": 0.002})
    assert (config.model.fusion_width, config.model.freeze, config.optim.lr) == (32, "encoder", 0.002)
    assert (config.preset, config.seed, config.train.epochs, config.train.best_metric) == ("tiny", 3, 9, "val/mse")


def test_a_condition_that_does_not_hold_leaves_the_default(tmp_path):
    one = read(tmp_path)
    assignment = {"model.fusion_width": 0, "model.freeze": "encoder_until:10", "optim.lr": 0.002}
    assert one.config(assignment).optim.lr == 0.001
    assert set(one.active(assignment)) == {"model.fusion_width", "model.freeze"}


def test_grid_is_every_combination(tmp_path):
    text = GOOD.replace("trials: 6", "search: grid").replace(
        "  optim.lr: {loguniform: [0.0001, 0.01], when: {model.freeze: encoder}}\n", ""
    )
    one = read(tmp_path, text)
    assert one.trials == len({str(each) for each in one.assignments(0)}) == 4


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("model.fusion_width:", "model.fusionwidth:", r"line 6.*Did you mean"),
        ("[0, 32]", "[0, -1]", r"line 6.*at least 0"),
        ("encoder_until:10", "encoder_until:99", r"line 7.*encoder_until:N"),
        ("[0.0001, 0.01]", "[0.01, 0.0001]", r"line 8.*\[low, high\]"),
        ("[0.0001, 0.01]", "[0, 0.01]", r"line 8.*above 0"),
        ("loguniform", "lognormal", r"line 8.*choice, uniform, loguniform"),
        ("trials: 6", "trials: 0", r"line 2.*at least 1"),
        ("trials: 6", "trails: 6", r"line 2.*unknown key 'trails'"),
        ("val/mse", "val/psnr", r"line 1.*val/mse, val/loss"),
        ("metric: val/mse", "metric: val/mse\nmode: max", r"line 2.*mode must be min"),
        ("metric: val/mse", "metric: val/mse\nsearch: bayes", r"line 2.*random, grid, optuna"),
        ("metric: val/mse", "metric: val/mse\nsearch: grid", r"needs a choice for optim.lr"),
        ("metric: val/mse", "metric: [val/mse, val/loss]", r"line 1.*cost/parameters, cost/gflop; not"),
        ("metric: val/mse", "metric: [cost/gflop]", r"line 1.*cost/gflop"),
        ("metric: val/mse", "metric: []", r"line 1.*not \[\]"),
        ("metric: val/mse", "metric: [val/mse, cost/gflop]\nmode: [min, max]", r"line 2.*mode must be min"),
        ("asha", "bohb", r"line 3.*one of none, asha, hyperband, median, pbt, not bohb"),
        ("asha", "hyperband", r"line 3.*hyperband takes max_epochs and, if you like, reduction_factor"),
        ("max_epochs: 9, ", "", r"line 3.*asha takes max_epochs and"),
        ("max_epochs: 9", "max_epochs: true", r"line 3.*max_epochs must be a whole number of at least 1, not True"),
        ("reduction_factor: 3", "reduction_factor: 1", r"line 3.*reduction_factor must be at least 2"),
        ("max_epochs: 9, grace_epochs: 2", "max_epochs: 1, grace_epochs: 2", r"line 3.*must not exceed"),
        ("gated", "ptc_dih", r"line 6.*exists for ptc_att_dih and gated only"),
        ("metric: val/mse", "metric: [", r"is not YAML"),
        ("when: {model.freeze:", "when: {model.freez:", r"line 8.*model\.freez does not exist"),
        ("when: {model.freeze: encoder}", "when: {model.width: 7}", r"line 8.*never holds"),
        ("{choice: [0, 32]}", "{uniform: [0, 32]}", r"line 6.*Integer"),
        ("model.fusion_width: {choice: [0, 32]}", "data.pack: {choice: [a, b]}", r"line 6.*same for all trials"),
        ("model.fusion_width: {choice: [0, 32]}", "scale.workers: {choice: [1, 2]}", r"line 6.*same for all trials"),
        ("model.fusion_width: {choice: [0, 32]}", "seed: {choice: [0, 1]}", r"line 6.*same for all trials"),
        ("preset: tiny,", "preset: tiny, train.epochs: 99,", r"line 4.*the scheduler's max_epochs"),
        ("preset: tiny,", "preset: tiny, optim.lr: 0.1,", r"line 8.*optim.lr is searched here"),
        ("preset: tiny,", 'preset: "${x",', r"is not YAML"),
    ],
)
def test_mistakes_name_file_line_and_rule(tmp_path, old, new, expected):
    assert old in GOOD
    with pytest.raises(UserError, match=expected) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["train.epochs=2", "train.best_metric=val/loss", "optim.lr=0.1"])
def test_words_that_the_sweep_decides_are_refused(tmp_path, word):
    with pytest.raises(UserError, match=word.split("=")[0]):
        read(tmp_path, words=[word])


SCHEDULES = [
    "none: {max_epochs: 9}",
    "asha: {max_epochs: 9}",
    "hyperband: {max_epochs: 9, reduction_factor: 2}",
    "median: {max_epochs: 9, grace_epochs: 2, min_trials: 2}",
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(tmp_path, schedule):
    one = read(tmp_path, GOOD.replace("asha: {max_epochs: 9, grace_epochs: 2, reduction_factor: 3}", schedule))
    assert (one.schedule.kind, one.schedule.max_epochs) == (schedule.split(":")[0], 9)


POPULATION = """\
metric: val/mse
trials: 6
scheduler: {pbt: {max_epochs: 9, interval_epochs: 3, share: 0.5}}
base: {preset: tiny, model.name: dih_nm}
space:
  optim.lr: {loguniform: [0.0001, 0.01]}
"""


def test_population_based_training(tmp_path):
    assert read(tmp_path, POPULATION).schedule == Population(9, 3, 0.5)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("optim.lr: {loguniform: [0.0001, 0.01]}", "train.batch_size: {choice: [4, 8]}", r"line 6.*moves weights"),
        ("trials: 6", "trials: 1", r"line 2.*at least 2"),
        ("trials: 6", "trials: 6\nsearch: optuna", r"line 3.*search must be random"),
        ("val/mse", "[val/mse, cost/gflop]", r"line 1.*one metric"),
        ("interval_epochs: 3", "interval_epochs: 9", r"line 3.*below max_epochs"),
        ("share: 0.5", "share: 0.6", r"line 3.*at most 0.5"),
    ],
)
def test_what_a_population_cannot_exchange(tmp_path, old, new, expected):
    assert old in POPULATION
    with pytest.raises(UserError, match=expected):
        read(tmp_path, POPULATION.replace(old, new, 1))


def test_several_objectives(tmp_path):
    one = read(tmp_path, GOOD.replace("metric: val/mse", "metric: [val/mse, cost/parameters]\nmode: [min, min]"))
    assert (one.metric, one.metrics) == ("val/mse", ("val/mse", "cost/parameters"))
    small, large = (
        one.costs({"model.fusion_width": width, "model.freeze": "encoder", "optim.lr": 0.001}) for width in (8, 32)
    )
    assert set(small) == {"cost/parameters"} and small["cost/parameters"] < large["cost/parameters"]


def test_a_file_of_other_bytes(tmp_path):
    (tmp_path / "s.yaml").write_bytes(b"metric: \xff")
    with pytest.raises(UserError, match="is not YAML"):
        space.read(tmp_path / "s.yaml", [])


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no readable search-space file"):
        space.read(tmp_path / "none.yaml", [])


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_spaces_that_come_along(path):
    one = space.read(path, ["data.root=x"])
    assert one.trials >= 4
    searched = set(one.keys)
    everything = {"model.fusion_width", "model.freeze", "optim.lr"}
    if path.stem == "study":  # of the ingredients of gated, its encoder frozen
        assert searched > everything - {"model.freeze"}
    else:
        assert searched == (everything if path.stem != "ptc_dih" else everything - {"model.fusion_width"})
