import csv
import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from packs import write_tree

from nrh_dist import config, metrics
from nrh_dist.data.layouts import Source
from nrh_dist.data.pack import cached_pack
from nrh_dist.engine.dist import Place
from nrh_dist.engine.run import run
from nrh_dist.errors import UserError
from nrh_dist.launch.evaluate import evaluate
from nrh_dist.launch.scoring import gpu_share

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp("evaluate") / "tree", train=12, test=44)


@pytest.fixture(scope="module")
def runs(tree, tmp_path_factory) -> list[str]:
    """A DIH-NM and a gated model, trained for an epoch, and a random two-stage model, in which nothing learns."""
    root = tmp_path_factory.mktemp("runs")
    pack = cached_pack(Source(tree), 64, lambda _: None)
    folders = []
    for name in ("dih_nm", "gated", "two_stage"):
        words = ["preset=tiny", "model.width=0.1", f"model.name={name}", "train.epochs=1", "data.val_fraction=0.3"]
        one = config.load(None, [*words, f"run.root={root}", f"run.name=my-{name}"])
        config.run_dir(one).mkdir(parents=True)
        run(one, pack.root, Place(), lambda _: None, lambda _: None)
        folders.append(str(config.run_dir(one)))
    return folders


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(runs, tree, tmp_path_factory) -> Path:
    return evaluate(runs, tree, "test", 1, tmp_path_factory.mktemp("one") / "e", lambda _: None)


def test_two_actors_write_the_same_bytes(undisturbed, runs, tree, tmp_path):
    assert content(evaluate(runs, tree, "test", 2, tmp_path / "e", lambda _: None)) == content(undisturbed)


def test_a_killed_actor_changes_nothing(undisturbed, runs, tree, tmp_path):
    import psutil

    killed = []

    def kill() -> None:
        while not killed:
            for process in psutil.process_iter(["cmdline"]):
                if "ray::ScoringActor.work" in (process.info["cmdline"] or []):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    said: list[str] = []
    out = evaluate(runs, tree, "test", 2, tmp_path / "e", said.append)
    killer.join()
    assert any("an actor died" in line for line in said)
    assert content(out) == content(undisturbed)


def test_files_say_what_they_should(undisturbed, tree):
    with (undisturbed / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 44
    assert [(row["run"], row["model"]) for row in rows[::44]] == [
        ("identity", "identity"),
        ("my-dih_nm", "dih_nm"),
        ("my-gated", "gated"),
        ("my-two_stage", "two_stage"),
        ("my-two_stage-true-masks", "dih_m"),
    ]
    assert len({(row["run"], row["name"]) for row in rows}) == len(rows)
    pack = cached_pack(Source(tree), 64, lambda _: None)
    by_name = {pack.names[row]: row for row in pack.rows("test")}
    for row in rows[:44]:
        number = by_name[row["name"]]
        difference = pack.composites[number].astype(float) - pack.reals[number]
        assert float(row["mse"]) == pytest.approx(np.mean(difference**2), rel=1e-6)
        assert row["mse"] == row["identity_mse"]
    summary = json.loads((undisturbed / "summary.json").read_text())
    assert (summary["size"], summary["datasets"], summary["split"]) == (64, {"Sample": 44}, "test")
    for model in summary["models"]:
        values = [float(row["mse"]) for row in rows if row["run"] == model["run"]]
        assert model["mse"] == pytest.approx(np.mean(values), rel=1e-6)
        assert sum(one["count"] for one in model["bins"]) == 44
        weighted = sum(one["count"] * one["mse"] for one in model["bins"]) / 44
        assert weighted == pytest.approx(model["mse"], rel=1e-9)
    assert summary["models"][0]["worse1"] == 0
    strips = json.loads((undisturbed / "strips" / "strips.json").read_text())
    assert len(strips["strips"]) == 6
    pictures = [strip["images"] for strip in strips["strips"]]
    assert all((undisturbed / "strips" / one["outputs"]["my-dih_nm"]).exists() for one in pictures)
    assert all((undisturbed / "strips" / one["outputs"]["my-two_stage-true-masks"]).exists() for one in pictures)
    assert all(sorted(one["masks"]) == ["my-gated", "my-two_stage"] for one in pictures)


def test_the_difference_of_the_masks_is_in_the_summary_and_on_the_terminal(runs, tree, tmp_path):
    said: list[str] = []
    evaluate(runs[2:], tree, "test", 1, tmp_path / "e", said.append)
    with (tmp_path / "e" / "per_image.csv").open() as file:
        mse = {(row["run"], row["name"]): float(row["mse"]) for row in csv.DictReader(file)}
    differences = [
        value - mse["my-two_stage-true-masks", name] for (run, name), value in mse.items() if run == "my-two_stage"
    ]
    (found,) = json.loads((tmp_path / "e" / "summary.json").read_text())["differences"]
    assert (found["run"], found["true_masks_run"]) == ("my-two_stage", "my-two_stage-true-masks")
    assert found["mse"] == pytest.approx(np.mean(differences), abs=1e-5)
    assert (found["better1"], found["worse1"]) == (sum(d < -1 for d in differences), sum(d > 1 for d in differences))
    (line,) = [line for line in said if line.startswith("C_p - C_s")]
    assert line.split()[3:5] == ["44", f"{found['mse']:+,.2f}"]
    assert "means over the images of the test list at 64 px" in said


def test_missing_lpips_weights_leave_the_column_empty_and_say_so(undisturbed, monkeypatch):
    summary = json.loads((undisturbed / "summary.json").read_text())
    if summary["lpips"] is None:
        pytest.skip("the backbone file is here")
    assert "alexnet-owt-7be5be79.pth" in summary["lpips"]
    assert all(model["lpips"] is None for model in summary["models"])


def test_mistakes(runs, tree, undisturbed, tmp_path):
    with pytest.raises(UserError, match="no checkpoint, run or sweep folder"):
        evaluate([str(tmp_path / "none")], tree, "test", 1, tmp_path / "e", print)
    with pytest.raises(UserError, match="64 actors need 64 CPUs"):
        evaluate(runs, tree, "test", 64, tmp_path / "e", print)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(UserError, match="is no evaluation"):
        evaluate(runs, tree, "test", 1, tmp_path / "full", print)
    only_train = write_tree(tmp_path / "only-train", train=4, test=0)
    with pytest.raises(UserError, match="test list"):
        evaluate(runs, only_train, "test", 1, tmp_path / "e", print)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "only-train"]


def test_identity_on_real_triplets(real_photos):
    """The documented errors of doing nothing on three real composites."""
    import torch
    from PIL import Image

    def tensor(name):
        array = np.asarray(Image.open(real_photos / "triplets" / name).convert("RGB"))
        return torch.from_numpy(array.copy()).permute(2, 0, 1)[None] / 127.5 - 1

    found = [metrics.mse(tensor(f"{n}-composite.png"), tensor(f"{n}-real.png")).item() for n in (1, 2, 3)]
    assert found == pytest.approx([2664.7, 683.0, 488.7], abs=0.06)


@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("actors", [1, 2, 3, 5, 8, 9])
def test_all_actors_fit_on_the_gpus(actors, gpus):
    share = gpu_share(actors, gpus)
    assert 0 < share <= 1
    assert gpus * int(1 / share + 1e-9) >= actors
    assert gpu_share(actors, 0) == 0
