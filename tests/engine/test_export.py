import json
import os
import shutil
import socket

import pytest
import safetensors.torch
import torch
from choices import PACK, TINY, make_evaluation, make_real_run
from packs import write_small_pack

from nrh_dist import config
from nrh_dist.data.pack import open_pack
from nrh_dist.engine import assemble, checkpoint, choose, detection, score, select
from nrh_dist.engine.dist import Place
from nrh_dist.engine.export import export
from nrh_dist.engine.run import run
from nrh_dist.errors import UserError
from nrh_dist.models import MODELS

FILES = {"README.md", "config.yaml", "manifest.json", "meta.json", "model.safetensors"}


def exported(path, out, evaluations=()):
    return export(path, evaluations, out, lambda _: None)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A random checkpoint of each model: those with parts were given paths, which hold the name of the user."""
    root = tmp_path_factory.mktemp("secretuser")
    made = {}
    for name in MODELS:
        words = ["data.root=/home/secretuser/photos", "data.pack=/home/secretuser/pack"]
        if name == "ptc":
            words += ["stage=thresholds", "data.thresholds=/home/secretuser/t.csv"]
        if name in ("two_stage", "ptc_dih", "gated", "ptc_att_dih"):
            words.append("model.detector_weights=/home/secretuser/ptc")
        if name in ("two_stage", "ptc_dih", "gated"):
            words.append("model.harmoniser_weights=/home/secretuser/dih")
        made[name] = make_real_run(root, name, name, *words)
    return made


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_whole_and_gives_the_same_output(checkpoints, tmp_path, name, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    out = exported(checkpoints[name], tmp_path / "deep" / "out")
    assert {file.name for file in out.iterdir()} == FILES and os.listdir(tmp_path / "deep") == ["out"]
    original, meta = assemble.trained_model(checkpoints[name])
    moved = shutil.move(out, tmp_path / "moved")
    copy, about = assemble.trained_model(moved)
    torch.manual_seed(5)
    image, mask = torch.rand(1, 3, 64, 64) * 2 - 1, torch.rand(1, 1, 64, 64)
    expected, found = (model(image) if name == "ptc" else model(image, mask) for model in (original, copy))
    for one, other in zip(expected, found, strict=True):
        assert one is other is None or torch.equal(one, other)
    assert about["metrics"] == meta["metrics"] and about["pack"] == PACK
    text = "".join(file.read_text(errors="replace") for file in moved.iterdir() if file.suffix != ".safetensors")
    for secret in ("secretuser", str(tmp_path), "0123456789" * 4, socket.gethostname()):
        assert secret not in text
    assert set(safetensors.torch.load_file(moved / "model.safetensors")) == set(original.state_dict())


def test_the_configuration_trains_again(checkpoints, tmp_path):
    out = exported(checkpoints["gated"], tmp_path / "out")
    given = config.load(None, [*TINY, "model.name=gated"])
    assert config.differing_keys(config.load(out / "config.yaml"), given) == []


def test_every_checkpoint_word_takes_it(checkpoints, tmp_path):
    out = exported(checkpoints["two_stage"], tmp_path / "out")
    assert select.resolve(str(out)) == out and select.run_of(out) == "out"
    assert [entry.run for entry in score.entries([str(out)])] == ["identity", "out", "out-true-masks"]
    detector = exported(checkpoints["ptc"], tmp_path / "detector")
    assert [entry.run for entry in detection.entries([str(detector)])] == ["detector"]
    words = ["model.name=two_stage", f"model.detector_weights={detector}"]
    words.append(f"model.harmoniser_weights={exported(checkpoints['dih_m'], tmp_path / 'dih')}")
    model = assemble.new_model(config.load(None, [*TINY, *words]), lambda _: None)
    loaded = assemble.trained_model(checkpoints["dih_m"])[0].state_dict()
    assert torch.equal(model.state_dict()["harmoniser.head.weight"], loaded["harmoniser.head.weight"])


@pytest.mark.parametrize("name", sorted(FILES - {"README.md"}))
def test_every_change_is_seen_but_that_of_the_card(checkpoints, tmp_path, name):
    out = exported(checkpoints["dih_nm"], tmp_path / "out")
    (out / "README.md").write_text("mine")
    assert checkpoint.fault(out) is None
    content = bytearray((out / name).read_bytes())
    content[len(content) // 2] ^= 1
    (out / name).write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        assemble.trained_model(out)
    (out / name).unlink()
    assert name in checkpoint.fault(out)


def test_the_card_tells_what_a_user_must_know(checkpoints, tmp_path):
    scores = {"identity": {"mse": 99.5}, "mine": {"mse": 88.25, "worse1": 0.125}, "other": {"mse": 1.0}}
    path, datasets = checkpoints["two_stage"], ("HCOCO", "HFlickr")
    evaluation = make_evaluation(tmp_path / "e", scores, {"mine": path}, datasets=datasets)
    card = (exported(path, tmp_path / "out", [(evaluation, "mine")]) / "README.md").read_text()
    assert card.startswith("# two_stage at 64 px\n")
    assert "| identity (doing nothing) | 20.00 |  |\n| two_stage | 12.50 | 31.25 |" in card
    assert "### The test list of `test-photos` at 64 px" in card and "* mse: how it is measured" in card
    assert "| HCOCO | identity (doing nothing) | 2 | 99.50 | 30.00 |  |  | 25.0 |" in card
    assert "| HCOCO | m | 2 | 88.25 | 30.00 |  |  | 12.5 |" in card and card.count("| HCOCO |") == 2
    for word in ("`photos`", PACK, "seed 3", "10 %", "## Limits", "MIT licence", "ImageNet", "nrh train --config"):
        assert word in card, word
    assert "model.detector_weights=DETECTOR_WEIGHTS model.harmoniser_weights=HARMONISER_WEIGHTS" in card


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("dih_nm", [], "No weights of others went into it."),
        ("ptc_dih", [], "VGG16's do not fit this width"),
        ("ptc_dih", ["model.width=1"], "Where torch's cache had them, its detector started from torchvision's VGG16"),
        ("ptc_dih", ["model.width=1", "model.vgg_weights=v"], "Its detector started from torchvision's VGG16"),
        (
            "ptc_dih",
            ["model.detector_weights=d"],
            "Its detector was trained before, and may have started from torchvision",
        ),
    ],
)
def test_whose_weights_went_into_it(monkeypatch, tmp_path, name, words, expected):
    monkeypatch.setattr("nrh_dist.engine.export.prove", lambda *_: None)  # full width takes its time
    card = (exported(make_real_run(tmp_path, "r", name, *words), tmp_path / "out") / "README.md").read_text()
    assert expected in card


def test_the_example_of_the_card_runs(checkpoints, tmp_path, monkeypatch):
    for name in ("dih_m", "gated", "ptc"):
        out = exported(checkpoints[name], tmp_path / name)
        code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
        scope = {"image": torch.zeros(1, 3, 64, 64), "mask": torch.zeros(1, 1, 64, 64)}
        exec(code.replace("THIS_FOLDER", str(out)), scope)
        assert scope["output"].shape == (1, 3, 56 if name == "ptc" else 64, 56 if name == "ptc" else 64)


def test_detectors_have_the_constant_beside_them(checkpoints, tmp_path):
    evaluation = make_evaluation(tmp_path / "e", {}, {"d": checkpoints["ptc"]})
    summary = json.loads((evaluation / "summary.json").read_text())
    thresholds = [{"sign": "both", "error": 0.25, "constant_error": 0.125}]
    summary["detectors"] = [{"run": "d", "thresholds": thresholds, "verdict": "no better"}]
    (evaluation / "summary.json").write_text(json.dumps(summary))
    card = (exported(checkpoints["ptc"], tmp_path / "out", [(evaluation, "d")]) / "README.md").read_text()
    assert "| both | 0.2500 | 0.1250 |" in card and "no better" in card and "nrh pretrain --config" in card


def nothing_left(tmp_path):
    return not any(path.name != "runs" for path in tmp_path.iterdir())


def test_what_gives_another_output_is_not_exported(tmp_path, monkeypatch):
    path = make_real_run(tmp_path / "runs", "r", "dih_nm")
    read_weights, calls = checkpoint.read_weights, []

    def wrong_the_second_time(folder):
        weights = read_weights(folder)
        calls.append(folder)
        if len(calls) == 2:
            weights["harmoniser.head.bias"][0] += 1e-6
        return weights

    monkeypatch.setattr(checkpoint, "read_weights", wrong_the_second_time)
    with pytest.raises(UserError, match="gives another output than"):
        exported(path, tmp_path / "out")
    assert len(calls) == 2 and nothing_left(tmp_path)


def test_what_the_disk_changed_or_does_not_take_is_not_exported(tmp_path, monkeypatch):
    path = make_real_run(tmp_path / "runs", "r", "dih_nm")
    write = checkpoint.write_files

    def flips_a_bit(folder, contents):
        weights = bytearray(contents[checkpoint.WEIGHTS])
        weights[-1] ^= 1
        write(folder, {**contents, checkpoint.WEIGHTS: bytes(weights)})

    monkeypatch.setattr(checkpoint, "write_files", flips_a_bit)
    with pytest.raises(UserError, match=r"is damaged: model\.safetensors"):
        exported(path, tmp_path / "out")
    assert nothing_left(tmp_path)

    def full(folder, contents):
        write(folder, contents)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_files", full)
    with pytest.raises(UserError, match=r"cannot write .*out: No space left on device"):
        exported(path, tmp_path / "out")
    assert nothing_left(tmp_path)


def test_values_that_are_not_finite_are_not_exported(tmp_path, monkeypatch):
    path = make_real_run(tmp_path / "runs", "r", "dih_nm")
    weights = checkpoint.read_weights(path)
    weights["harmoniser.head.bias"][:] = float("nan")
    meta = {**checkpoint.read_meta(path), "step": 8}
    bad = checkpoint.save(tmp_path / "runs" / "bad", weights, {}, meta)
    with pytest.raises(UserError, match="not finite"):
        exported(bad, tmp_path / "out")
    assert nothing_left(tmp_path)


def test_an_existing_folder_and_a_detector_that_detects_nothing_are_refused(tmp_path):
    path = make_real_run(tmp_path / "runs", "r", "dih_nm")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out exists: choose another folder"):
        exported(path, tmp_path / "out")
    (tmp_path / "out").rmdir()
    early = make_real_run(tmp_path / "runs", "e", "ptc", "stage=equivariance")
    with pytest.raises(UserError, match="stage=equivariance and detects nothing yet"):
        exported(early, tmp_path / "out")
    assert nothing_left(tmp_path)


def test_what_a_kill_left_is_replaced(tmp_path):
    path = make_real_run(tmp_path / "runs", "r", "dih_nm")
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half").write_text("")
    assert {file.name for file in exported(path, tmp_path / "out").iterdir()} == FILES
    assert sorted(os.listdir(tmp_path)) == ["out", "runs"]


def test_the_best_is_exported(tmp_path):
    make_real_run(tmp_path / "runs", "one", "dih_nm", **{"val/mse": 2.0})
    make_real_run(tmp_path / "runs", "two", "dih_nm", "seed=4", **{"val/mse": 1.0})
    said = []
    choose.best([tmp_path / "runs"], [], False, tmp_path / "out", said.append)
    assert checkpoint.read_meta(tmp_path / "out")["config"]["seed"] == 4
    assert said[-1].endswith("loaded anew, it gives the same output bit for bit")


def test_the_exported_configuration_gives_the_same_weights_again(tmp_path):
    pack = write_small_pack(tmp_path, train=12).root

    def trained(one):
        config.run_dir(one).mkdir(parents=True)
        run(one, pack, Place(), lambda _: None, lambda _: None)
        return select.resolve(config.run_dir(one))

    words = [f"data.pack={pack}", "data.val_fraction=0.3", "train.epochs=1", "model.name=ptc_dih"]
    first = trained(config.load(None, [*TINY, *words, f"run.root={tmp_path}/runs"]))
    out = exported(first, tmp_path / "out")
    again = trained(config.load(out / "config.yaml", [f"data.pack={pack}", f"run.root={tmp_path}/again"]))
    assert (again / checkpoint.WEIGHTS).read_bytes() == (out / checkpoint.WEIGHTS).read_bytes()
    assert f"training list of `{pack.name}`, packed as `{open_pack(pack).digest}`" in (out / "README.md").read_text()
