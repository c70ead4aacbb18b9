import re

import pytest

from nrh_dist import config
from nrh_dist.errors import UserError


def message(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        config.load(None, words)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "DATA_TOKEN"])
def test_a_secret_comes_into_no_configuration(monkeypatch, name):
    monkeypatch.setenv(name, "0f1e2d3c4b5a")
    for value in (f"${{oc.env:{name}}}", f"s3://me:${{oc.env:{name}}}@bucket", "s3://me:0f1e2d3c4b5a@bucket"):
        told = message(f"data.root={value}")
        assert told.startswith(f"data.root holds the secret in the environment variable {name}")
        assert "0f1e2d3c4b5a" not in told
    monkeypatch.setenv("PLACE", "/data/photos")
    assert config.load(None, ["data.root=${oc.env:PLACE}"]).data.root == "/data/photos"


def test_order_of_precedence(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("preset: tiny\ntrain: {epochs: 7, batch_size: 3}\n")
    loaded = config.load(path, ["train.batch_size=5"])
    assert (loaded.data.size, loaded.train.epochs, loaded.train.batch_size, loaded.optim.lr) == (64, 7, 5, 1e-3)


def test_paper_preset_is_the_papers():
    paper = config.load(None, ["preset=paper"])
    assert (paper.data.size, paper.train.epochs, paper.train.batch_size, paper.model.width) == (256, 50, 32, 1.0)
    assert (paper.optim.lr, paper.loss.name, paper.model.freeze) == (1e-3, "mse", "encoder")
    assert config.load(None, ["model.name=ptc_att_dih"]).model.fusion_width == 512


def test_visible_shifts_need_room_above_the_threshold():
    words = ("model.name=ptc", "data.transform_stops=0.2")
    assert config.load(None, ["stage=equivariance", *words]).data.transform_stops == 0.2
    assert "must be above 0.25, what people notice on average" in message("stage=thresholds", *words)


def test_a_stage_has_defaults_of_its_own():
    """Adam 1e-4 with cosine restarts, as the detector's authors; preset, file and words beat them."""
    first = config.load(None, ["model.name=ptc", "stage=equivariance"])
    assert (first.optim.lr, first.optim.schedule, first.model.freeze) == (1e-4, "cosine_restarts", "none")
    assert config.load(None, ["model.name=ptc", "stage=equivariance", "optim.lr=0.01"]).optim.lr == 0.01
    second = config.load(None, ["model.name=ptc", "stage=thresholds"])
    assert (second.optim.lr, second.optim.schedule, second.model.freeze) == (1e-3, "constant", "encoder")
    assert second.data.transforms == ["exposure"]


@pytest.mark.parametrize("name", ["dih_m", "dih_nm", "two_stage", "ptc_dih", "ptc_att_dih", "gated"])
@pytest.mark.parametrize("preset", ["paper", "tiny"])
def test_dump_loads_to_the_same(tmp_path, name, preset):
    one = config.load(None, [f"preset={preset}", f"model.name={name}", "optim.lr=0.0003"])
    path = tmp_path / "config.yaml"
    path.write_text(config.dump(one))
    assert config.load(path) == one
    assert config.from_dict(config.to_dict(one)) == one


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("model.nmae=ptc_dih", "Did you mean: 'name'"),
        ("modle.name=ptc_dih", "Did you mean: 'model'"),
        ("model.name=ptc_dhi", "ptc_dih"),
        ("preset=papr", "paper"),
        ("optim.lr=fast", "optim.lr"),
        ("optim.lr=0", "above 0"),
        ("scale.workers=0", "at least 1"),
        ("scale.min_workers=2", "in 1..1, the number of scale.workers"),
        ("scale.min_workers=0", "in 1..1"),
        ("train.epochs=0", "at least 1"),
        ("train.batch_size=0", "at least 1"),
        ("data.size=100", "64, 128, 256"),
        ("data.val_fraction=1", r"\[0, 1\)"),
        ("data.transforms=[]", "one or more of exposure, white_balance, saturation, contrast"),
        ("data.transforms=[exposure,blur]", r"\[exposure,blur\]: data.transforms must be one or more"),
        ("data.transforms=[exposure,exposure]", "each once"),
        ("data.transform_stops=0", "above 0"),
        ("data.thresholds=t.csv", "nrh pretrain only"),
        ("loss.object_share=0.5", "0 but for stage=thresholds"),
        ("model.width=0", "1.0 is the paper"),
        ("model.freeze=half", "encoder_until:N"),
        ("model.freeze=encoder_until:14", "1 to 13"),
        ("model.fusion_width=8", "ptc_att_dih and gated only"),
        ("loss.harm=1", "gated only"),
        ("model.residual=true", "dih_m and dih_nm only"),
        ("model.gate=false", "of gated only"),
        ("model.correction_strength=2", "0, 1"),
        ("model.gate_threshold=1", "0, 1"),
        ("model.least_change=-1", "0 or more"),
        ("model.name=ptc", "nrh pretrain"),
        ("run.name=../x", "letters, digits"),
        ("seed=-1", "0 or more"),
        ("optim.lr=inf", "finite"),
        ("loss.harm=inf", "finite"),
        ("model.batchnorm_momentum=0", r"in \(0, 1\]"),
        ("model.batchnorm_eps=0", "above 0"),
        ("lr", "key=value"),
        ("model=3", "model"),
    ],
)
def test_mistakes_get_one_line(word, expected):
    assert re.search(expected, message(word))


def test_a_model_without_detector_takes_no_detector_settings():
    assert "has none" in message("model.name=dih_nm", "model.freeze=none")
    assert "has none" in message("model.name=dih_nm", "model.detector_weights=x")


def test_only_models_with_a_mask_of_one_class_can_be_taught_it():
    assert config.load(None, ["model.name=ptc_dih", "loss.gate=1"]).loss.gate == 1
    assert "gated and ptc_dih only" in message("model.name=dih_nm", "loss.gate=1")
    assert "no gate to teach" in message("model.name=gated", "model.gate=false", "loss.gate=1")


def test_dotted_keys_give_the_same_configuration():
    one = config.load(None, ["preset=tiny", "model.name=gated", "run.name=mine"])
    assert config.from_flat(config.flatten(one)) == one


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UserError, match="no configuration file"):
        config.load(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: {name: [")
    with pytest.raises(UserError, match="not a readable YAML file"):
        config.load(broken)
    broken.write_text("- a\n")
    with pytest.raises(UserError, match="must hold keys and values"):
        config.load(broken)


def test_run_name_depends_on_what_decides_the_result_only():
    base = config.run_name(config.load(None, []))
    assert base.startswith("ptc_dih-seed0-")
    assert config.run_name(config.load(None, ["scale.workers=4", "track.wandb=disabled", "run.root=x"])) == base
    assert config.run_name(config.load(None, ["optim.lr=0.01"])) != base
    assert config.run_name(config.load(None, ["run.name=mine"])) == "mine"


def test_differing_keys_name_key_and_values():
    one, other = config.load(None, []), config.load(None, ["optim.lr=0.5", "scale.workers=3"])
    assert config.differing_keys(one, other) == ["optim.lr: 0.001 -> 0.5"]


def test_absolute_paths_for_other_machines(tmp_path):
    one = config.load(None, ["data.root=d", "run.name=r", "model.detector_weights=/w"])
    there = config.with_absolute_paths(one, tmp_path)
    assert (there.data.root, there.run.root, there.run.name) == (f"{tmp_path}/d", f"{tmp_path}/runs", "r")
    assert (there.model.detector_weights, there.data.pack, one.data.root) == ("/w", None, "d")


def test_settings_that_a_model_has_no_part_for():
    assert "two_stage, ptc_dih, gated only" in message("model.name=dih_nm", "model.harmoniser_weights=x")
    assert "val/loss" in message("model.name=ptc", "stage=equivariance", "train.best_metric=val/mse")


def test_a_default_name_is_kept_when_paths_become_absolute(tmp_path):
    one = config.load(None, ["data.root=d"])
    assert config.run_name(config.with_absolute_paths(one, tmp_path)) == config.run_name(one)
