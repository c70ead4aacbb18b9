import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluated import content
from packs import write_tree

from nrh_dist import config, metrics
from nrh_dist.cli import main
from nrh_dist.data import coco_exp
from nrh_dist.data.layouts import Source
from nrh_dist.data.pack import cached_pack, listed, write_pack
from nrh_dist.data.synthetic import write_sample
from nrh_dist.engine import checkpoint, select
from nrh_dist.engine.dist import Place
from nrh_dist.engine.run import run
from nrh_dist.engine.shards import DONE, FILES
from nrh_dist.errors import UserError
from nrh_dist.launch import session, strips
from nrh_dist.launch.evaluate import FIRST, Options, _provenance, evaluate
from nrh_dist.launch.scoring import gpu_share
from nrh_dist.report.html import write as write_report
from nrh_dist.workflows.coco_exp import make

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


@pytest.fixture(scope="module")
def undisturbed(runs, tree, tmp_path_factory) -> Path:
    return evaluate(runs, tree, tmp_path_factory.mktemp("one") / "e", Options(), lambda _: None)


def test_two_actors_write_the_same_bytes(undisturbed, runs, tree, tmp_path):
    assert content(evaluate(runs, tree, tmp_path / "e", Options(actors=2), lambda _: None)) == content(undisturbed)


def test_a_killed_actor_changes_nothing(undisturbed, runs, tree, tmp_path):
    import psutil

    killed = []

    def kill() -> None:
        while not killed:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if "ray::ScoringActor.work" in process.cmdline():
                        os.kill(process.pid, signal.SIGKILL)
                        killed.append(process.pid)
                        return
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    said: list[str] = []
    out = evaluate(runs, tree, tmp_path / "e", Options(actors=2), said.append)
    killer.join()
    assert any("an actor died" in line for line in said)
    assert content(out) == content(undisturbed)


@pytest.mark.slow
def test_a_killed_driver_costs_no_image_that_was_scored(undisturbed, runs, tree, tmp_path):
    command = [sys.executable, "-m", "nrh_dist", "evaluate", *runs, "--data", str(tree), "--out", str(tmp_path / "e")]
    log = tmp_path / ".e.partial" / DONE
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not log.exists() or not log.read_text().count("\n"):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    kept = log.read_text().count("\n")
    assert 0 < kept < 3 and not (tmp_path / "e").exists()
    log.write_text(re.sub(r"[\d.]+$", "1000", log.read_text(), count=1, flags=re.M))
    said: list[str] = []
    out = evaluate(runs, tree, tmp_path / "e", Options(actors=2), said.append)
    told = json.loads((out / "provenance.json").read_text())
    assert told["seconds"] > 1000 and told["images_per_s"] < 0.044, "the time of all lives"
    assert f"continuing: {16 * kept} of 44 images are scored already" in said
    assert content(out) == content(undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


@pytest.mark.slow
def test_what_was_scored_is_not_used_for_something_else(undisturbed, runs, tree, tmp_path, monkeypatch):
    """An evaluation that a failure ends keeps what it has; with other checkpoints it starts anew."""

    def fail(*_):
        raise RuntimeError("no strips today")

    monkeypatch.setattr(strips, "write", fail)
    for words in (runs, runs[:1]):
        with pytest.raises(RuntimeError):
            evaluate(words, tree, tmp_path / "e", Options(), lambda _: None)
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / ".e.partial").iterdir()) == [".lock", *sorted(FILES)]
    said: list[str] = []
    assert content(evaluate(runs, tree, tmp_path / "e", Options(), said.append)) == content(undisturbed)
    assert not any("scored already" in line for line in said)


def test_the_cost_and_the_origin_are_told(undisturbed, runs):
    told = json.loads((undisturbed / "provenance.json").read_text())
    assert told["images"] == 44 and told["actors"] == 1 and told["images_per_s"] == 44 / told["seconds"]
    assert told["cpu_hours"] == pytest.approx(told["seconds"] / 3600) and told["environment"]["torch"]
    assert set(told["training"]) == {"my-dih_nm", "my-gated", "my-two_stage", "my-two_stage-true-masks"}
    assert told["training"]["my-gated"]["workers"] == 1
    assert told["training"]["my-gated"]["device"] == told["device"] == ("GPU" if told["gpus"] else "CPU")


def test_the_conventions_of_others_on_request(runs, tree, tmp_path):
    out = evaluate(runs[:1], tree, tmp_path / "e", Options(peaks=True), lambda _: None)
    with (out / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-2:] == ["psnr_range", "psnr_target_max"]
    for row in rows:
        assert float(row["psnr_range"]) <= float(row["psnr"]) and float(row["psnr_target_max"]) <= float(row["psnr"])


@pytest.mark.slow
def test_a_coco_exp_set_tells_categories_and_shifts(tmp_path):
    count, said = 6, []
    write_sample(tmp_path / "sample", seed=0, say=said.append)
    coco = tmp_path / "sample" / "coco"
    annotations, images = coco / "annotations" / "instances_val2017.json", coco / "val2017"
    make(images, annotations, tmp_path / "set", count, 0, "meanstd", "l", "png", "test", 1, said.append)
    out = evaluate(["identity"], tmp_path / "set", tmp_path / "e", Options(), said.append)
    with (out / "per_image.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert all(row["group"] == f"coco:{int(name[1:].split('_')[0])}" for name, row in rows.items())
    manifest = coco_exp.read_manifest(tmp_path / "set")
    assert len(rows) == len(manifest) == count
    for one in manifest:
        row = rows[one["composite"].rpartition(".")[0]]
        assert row["category"] == one["category"] and row["shift_stops"] == one["shift_stops"]
    edited = (tmp_path / "set" / "manifest.csv").read_text().replace(manifest[0]["shift_stops"], "much")
    (tmp_path / "set" / "manifest.csv").write_text(edited)
    out = evaluate(["identity"], tmp_path / "set", tmp_path / "e", Options(), said.append)
    with (out / "per_image.csv").open() as file:
        stops = {row["name"]: row["shift_stops"] for row in csv.DictReader(file)}
    assert stops[manifest[0]["composite"].rpartition(".")[0]] == "" and stops[manifest[1]["composite"][:-4]]
    (tmp_path / "set" / "manifest.csv").write_text("of,another,program\n")
    out = evaluate(["identity"], tmp_path / "set", tmp_path / "e", Options(), said.append)
    assert "category" in (out / "per_image.csv").read_text().splitlines()[0]


def test_files_say_what_they_should(undisturbed, tree):
    with (undisturbed / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 44
    assert list(rows[0])[:11] == [*FIRST, "identity_mse", "identity_psnr"] and "group" in rows[0]
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
    groups = [strip["group"] for strip in strips["strips"]]
    assert groups[:8] == ["best"] * 2 + ["median"] * 2 + ["worst"] * 2 + ["random"] * 2
    assert groups[-2:] == ["one photo, several composites"] * 2
    assert len({strip["name"].split("_")[0] for strip in strips["strips"][-2:]}) == 1
    assert set(groups) == set(strips["rules"]) and len({strip["run"] for strip in strips["strips"]}) == 1
    assert strips["strips"][0]["change"] <= strips["strips"][1]["change"] < strips["strips"][4]["change"]
    pictures = [strip["images"] for strip in strips["strips"]]
    assert all((undisturbed / "strips" / one["outputs"]["my-dih_nm"]).exists() for one in pictures)
    assert all((undisturbed / "strips" / one["outputs"]["my-two_stage-true-masks"]).exists() for one in pictures)
    assert all(sorted(one["masks"]) == ["my-gated", "my-two_stage"] for one in pictures)


def test_the_difference_of_the_masks_is_in_the_summary_and_on_the_terminal(runs, tree, tmp_path):
    said: list[str] = []
    evaluate(runs[2:], tree, tmp_path / "e", Options(), said.append)
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


def test_subsets_together_and_one_alone(runs, tmp_path):
    """The rows of a sub-set are the same numbers whether others are evaluated with it or not."""
    root = tmp_path / "root"
    root.mkdir()
    for name, seed in (("HFlickr", 1), ("HCOCO", 2)):
        (write_tree(tmp_path / name, train=0, test=10 + 6 * seed, seed=seed) / "Sample").rename(root / name)
        for split in ("train", "test"):
            (root / name / f"Sample_{split}.txt").rename(root / name / f"{name}_{split}.txt")
    both = evaluate(runs[:1], root, tmp_path / "both", Options(), lambda _: None)
    alone = evaluate(runs[:1], root / "HCOCO", tmp_path / "alone", Options(), lambda _: None)
    header, *rows = (both / "per_image.csv").read_text().splitlines()
    own_header, *own = (alone / "per_image.csv").read_text().splitlines()
    assert header == own_header and own == [row for row in rows if row.startswith("HCOCO,")] and len(own) == 2 * 22
    summary, own_summary = (json.loads((one / "summary.json").read_text()) for one in (both, alone))
    assert summary["datasets"] == {"HCOCO": 22, "HFlickr": 16} and own_summary["datasets"] == {"HCOCO": 22}
    assert [one["dataset"] for one in summary["models"][::2]] == ["HCOCO", "HFlickr", "all"]
    assert own_summary["models"] == [one for one in summary["models"] if one["dataset"] == "HCOCO"]
    page = write_report([both], tmp_path / "report").read_text()
    assert "Means by sub-set" in page and "HFlickr, 16 images" in page


@pytest.mark.parametrize("value", ["nan", pytest.param("inf", marks=pytest.mark.slow)])
def test_a_model_that_gives_no_numbers_is_counted_and_on_the_page(value, runs, tree, tmp_path):
    sound = select.resolve(runs[0])
    weights = checkpoint.read_weights(sound)
    last = [name for name in weights if name.endswith("bias")][-1]
    weights[last] = torch.full_like(weights[last], float(value))
    broken = checkpoint.save(tmp_path / "broken" / "checkpoints", weights, {}, checkpoint.read_meta(sound))
    said: list[str] = []
    out = evaluate([runs[1], str(broken)], tree, tmp_path / "e", Options(), said.append)
    assert "broken: 44 images of Sample without a finite value, left out of its means" in said
    with (out / "per_image.csv").open() as file:
        cells = [row["mse"] for row in csv.DictReader(file) if row["run"] == "broken"]
    assert cells == [""] * 44
    found = {one["run"]: one for one in json.loads((out / "summary.json").read_text())["models"]}
    assert (found["broken"]["not_finite"], found["broken"]["mse"]) == (44, None) and found["my-gated"]["mse"] > 0
    page = write_report([out], tmp_path / "report").read_text()
    assert "DIH-NM: 44 images without a value, left out." in page


def test_samples_that_the_pack_lacks_are_told(tmp_path):
    """Of both lists: a pack does not say of which they were."""
    root, said = write_tree(tmp_path / "tree", train=4, test=12), []
    (root / "Sample" / "composite_images" / "s2_1_1.png").write_bytes(b"no picture")
    (root / "Sample" / "masks" / "s5_0.png").unlink()
    source = Source(root)
    pack = write_pack(listed(source, 2), tmp_path / "pack", 64, 1, lambda _: None, 2)
    out = evaluate(["identity"], pack.root, tmp_path / "e", Options(), said.append)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["left_out"] == {"count": 2, "names": [name for name, _ in pack.skipped]}
    assert sorted(summary["left_out"]["names"]) == ["Sample/s2_1_1", "Sample/s5_0_1"]
    assert summary["datasets"] == {"Sample": 10}
    assert [line for line in said if line.startswith("2 samples of the data are left out")]
    page = write_report([out], tmp_path / "report").read_text()
    assert "2 samples of the data, whose files cannot be used, are in no number: Sample/s2_1_1, Sample/s5_0_1." in page


def test_a_root_that_lacks_a_real_photo_is_refused_in_one_line(tmp_path, capfd):
    root = write_tree(tmp_path / "tree", train=4, test=12)
    (root / "Sample" / "real_images" / "s3.png").unlink()
    with pytest.raises(SystemExit) as exit:
        main(["evaluate", "identity", "--data", str(root), "--out", str(tmp_path / "e")])
    said = capfd.readouterr()
    assert exit.value.code == 1
    (line,) = [line for line in (said.out + said.err).splitlines() if line.strip()]
    assert "real_images/s3.png: is missing" in line and "nrh data verify" in line and not (tmp_path / "e").exists()


def test_mistakes(runs, tree, undisturbed, tmp_path):
    with pytest.raises(UserError, match="no checkpoint, run or sweep folder"):
        evaluate([str(tmp_path / "none")], tree, tmp_path / "e", Options(), print)
    with pytest.raises(UserError, match="64 actors need 64 CPUs"):
        evaluate(runs, tree, tmp_path / "e", Options(actors=64), print)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(UserError, match="is no evaluation"):
        evaluate(runs, tree, tmp_path / "full", Options(), print)
    only_train = write_tree(tmp_path / "only-train", train=4, test=0)
    with pytest.raises(UserError, match="test list"):
        evaluate(runs, only_train, tmp_path / "e", Options(), print)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "only-train"]


def test_identity_on_real_triplets(real_photos):
    """The documented errors of doing nothing on three real composites."""
    from PIL import Image

    def tensor(name):
        array = np.asarray(Image.open(real_photos / "triplets" / name).convert("RGB"))
        return torch.from_numpy(array.copy()).permute(2, 0, 1)[None] / 127.5 - 1

    found = [metrics.mse(tensor(f"{n}-composite.png"), tensor(f"{n}-real.png")).item() for n in (1, 2, 3)]
    assert found == pytest.approx([2664.7, 683.0, 488.7], abs=0.06)


@pytest.mark.parametrize(("actors", "used"), [(1, 1), (2, 2), (3, 2)])
def test_gpu_hours_are_those_of_the_gpus_that_actors_had(actors, used, monkeypatch):
    monkeypatch.setattr(session, "resources", lambda: {"CPU": 4.0, "GPU": 2.0})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # those of other machines
    told = _provenance([], actors, {"started": "now", "seconds": 1800.0, "images": 900})
    assert (told["device"], told["gpus"], told["gpu_hours"], told["cpu_hours"]) == ("GPU", 2, 0.5 * used, 0.5 * actors)


@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("actors", [1, 2, 3, 5, 8, 9])
def test_all_actors_fit_on_the_gpus(actors, gpus):
    share = gpu_share(actors, gpus)
    assert 0 < share <= 1
    assert gpus * int(1 / share + 1e-9) >= actors
    assert gpu_share(actors, 0) == 0
