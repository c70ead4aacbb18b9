"""COCO-Exp as a whole: the same bytes on any number of workers, after kills and for larger counts; clear refusals."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nrh_dist.data import layouts, synthetic
from nrh_dist.data.coco_exp import Maker
from nrh_dist.data.images import read_mask, read_rgb
from nrh_dist.errors import UserError
from nrh_dist.launch.generate import generate


@pytest.fixture(scope="module")
def coco_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample")
    synthetic.write_sample(out, say=lambda line: None, train_photos=16, test_photos=8)
    return out / "coco"


@pytest.fixture
def make(coco_folder):
    """``generate`` on the sample; the train split of the sample unless told otherwise."""

    def call(out, count=12, seed=1, sample="train2017", **options):
        annotations = coco_folder / f"annotations/instances_{sample}.json"
        return generate(coco_folder / sample, annotations, out, count, seed, say=lambda line: None, **options)

    return call


def contents(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_result_is_a_data_root_with_a_manifest(make, tmp_path):
    rejected = make(tmp_path, count=20, format="png")
    samples = layouts.index(layouts.Source(tmp_path))
    with (tmp_path / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(samples) == len(rows) == 20
    outcomes = [json.loads(line) for line in (tmp_path / "COCOExp/candidates_test.jsonl").read_text().splitlines()[1:]]
    assert sum(rejected.values()) == len(outcomes) - 20
    assert [sample.composite.name for sample in samples] == [row["composite"] for row in rows]
    for sample, row in zip(samples, rows, strict=True):
        composite, real, mask = read_rgb(sample.composite), read_rgb(sample.real), read_mask(sample.mask)
        np.testing.assert_array_equal(composite[mask == 0], real[mask == 0])
        assert (composite[mask > 0] != real[mask > 0]).any()
        assert float(row["area_fraction"]) == pytest.approx((mask >= 128).mean(), abs=1e-6)
        assert float(row["mse"]) == pytest.approx(((composite - real.astype(float)) ** 2).mean(), abs=1e-6)
        assert sample.group == f"coco:{row['photo_id']}"
        assert row["photo_id"] != row["reference_photo_id"]


def test_a_larger_count_only_appends(make, tmp_path):
    make(tmp_path / "small", count=9)
    make(tmp_path / "large", count=25)
    small, large = contents(tmp_path / "small"), contents(tmp_path / "large")
    assert large["manifest.csv"].startswith(small["manifest.csv"])
    pictures = {name for name in small if name.endswith((".jpg", ".png"))}
    assert all(large[name] == small[name] for name in pictures)
    make(tmp_path / "small", count=25)
    assert contents(tmp_path / "small") == large


def test_ray_workers_give_the_same_bytes(make, tmp_path, ray_session):
    make(tmp_path / "one", count=70)
    make(tmp_path / "two", count=70, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_kill_9_and_a_second_call_give_the_same_bytes(make, coco_folder, tmp_path):
    make(tmp_path / "whole", count=90)
    annotations = coco_folder / "annotations/instances_train2017.json"
    code = (
        "import time; from pathlib import Path\n"
        "from nrh_dist.data.coco_exp import Maker; from nrh_dist.launch import generate, makers\n"
        "real = Maker.make\n"
        "Maker.make = lambda *a: (time.sleep(0.02), real(*a))[1]\n"
        f"makers.CHUNK = 4; generate.generate(*map(Path, {[str(coco_folder / 'train2017'), str(annotations)]}), "
        f"Path({str(tmp_path / 'killed')!r}), 90, 1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    folder, log = tmp_path / "killed/COCOExp", tmp_path / "killed/COCOExp/candidates_test.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and len(log.read_text().splitlines()) > 9):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "COCOExp_test.txt").exists()
    (folder / ".partial/half-written").write_bytes(b"\xff\xd8")
    header, *lines = log.read_text().splitlines()
    # Workers finish in any order, and the last line may have been cut off.
    log.write_text("\n".join([header, *reversed(lines), '{"index": 3']))
    first = next((folder / "composite_images").iterdir())
    first.unlink()
    make(tmp_path / "killed", count=90)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_kill_9_of_a_driver_with_two_ray_workers(make, coco_folder, tmp_path, ray_session):
    make(tmp_path / "whole", count=90)
    annotations = coco_folder / "annotations/instances_train2017.json"
    code = (
        "import time; from pathlib import Path\n"
        "from slow_maker import SlowMaker; from nrh_dist.launch import generate, makers\n"
        "makers.Maker, makers.CHUNK = SlowMaker, 4\n"
        f"generate.generate(*map(Path, {[str(coco_folder / 'train2017'), str(annotations)]}), "
        f"Path({str(tmp_path / 'killed')!r}), 90, 1, workers=2)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, env=environment)
    log = tmp_path / "killed/COCOExp/candidates_test.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and len(log.read_text().splitlines()) > 9):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/manifest.csv").exists()
    make(tmp_path / "killed", count=90, workers=2)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_second_split_joins_the_first(make, tmp_path):
    make(tmp_path, count=10, split="train")
    before = contents(tmp_path)
    make(tmp_path, count=5, sample="val2017", split="test")
    after = contents(tmp_path)
    assert [sample.split for sample in layouts.index(layouts.Source(tmp_path))] == ["train"] * 10 + ["test"] * 5
    assert after["manifest.csv"].startswith(before.pop("manifest.csv"))
    assert all(after[name] == before[name] for name in before)


def test_settings_decide_the_bytes_but_not_the_pairs(make, tmp_path):
    options = ({}, {"method": "hist"}, {"channels": "lab"}, {"seed": 2})
    made = []
    for number, chosen in enumerate(options):
        make(tmp_path / str(number), count=6, **chosen)
        made.append((contents(tmp_path / str(number)), (tmp_path / f"{number}/IHD_test.txt").read_text()))
    names = [listed for _, listed in made]
    assert names[0] == names[1] == names[2] != names[3]
    picture = f"COCOExp/composite_images/{names[0].split()[0].rsplit('/')[-1]}"
    assert len({content[picture] for content, _ in made[:3]}) == 3


def test_refusals_name_the_way_out(make, coco_folder, tmp_path):
    make(tmp_path / "done", count=5)
    before = contents(tmp_path / "done")
    for options, message in (
        ({"count": 10_000}, r"give \d+ candidate pairs"),
        ({"seed": 2}, "seed: 1 -> 2"),
        ({"count": 4}, "at least as many"),
        ({"count": 0}, "at least 1"),
        ({"split": "train"}, "one split only"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            make(tmp_path / "done", **{"count": 5, **options})
        assert "\n" not in str(caught.value)
    assert contents(tmp_path / "done") == before
    annotations = coco_folder / "annotations/instances_train2017.json"
    with pytest.raises(UserError, match=r"16 of 16 photos are missing"):
        generate(tmp_path, annotations, tmp_path / "none", 5, 1)
    assert not (tmp_path / "none").exists()


def test_bad_photos_are_left_out_and_too_few_pairs_are_told(coco_folder, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(coco_folder / "train2017", images)
    broken = images / "000000000002.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    annotations = coco_folder / "annotations/instances_train2017.json"
    said = []
    assert generate(images, annotations, tmp_path / "a", 40, 1, say=said.append)["unreadable"] > 0
    assert len(layouts.index(layouts.Source(tmp_path / "a"))) == 40
    assert sum("000000000002.jpg" in line for line in said) == 1
    assert not list((tmp_path / "a/COCOExp").glob("*/c2*"))

    pairs = int(said[0].split(", ")[-1].split()[0])
    with pytest.raises(UserError, match=r"ask for at most \d+") as caught:
        generate(images, annotations, tmp_path / "b", pairs, 1, say=said.append)
    most = int(str(caught.value).split()[-1])
    generate(images, annotations, tmp_path / "b", most, 1, say=said.append)
    assert len(layouts.index(layouts.Source(tmp_path / "b"))) == most


def test_files_that_a_power_cut_left_empty_are_made_again(make, tmp_path):
    make(tmp_path, count=12)
    whole = contents(tmp_path)
    for folder in ("composite_images", "masks", "real_images"):
        next((tmp_path / "COCOExp" / folder).iterdir()).write_bytes(b"")
        make(tmp_path, count=12)
        assert contents(tmp_path) == whole


def test_a_larger_count_that_was_only_begun_is_not_called_finished(make, tmp_path, monkeypatch):
    make(tmp_path / "done", count=12)
    make(tmp_path / "whole", count=40)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Maker, "make", full)
        with pytest.raises(UserError, match="No space left"):
            make(tmp_path / "done", count=40)
    with pytest.raises(UserError, match="40 composites, finished or begun; ask for at least as many"):
        make(tmp_path / "done", count=12)
    make(tmp_path / "done", count=40)
    assert contents(tmp_path / "done") == contents(tmp_path / "whole")


def test_a_disk_that_refuses_is_one_line_and_a_second_call_goes_on(make, tmp_path, monkeypatch):
    make(tmp_path / "whole", count=40)
    real, calls = Maker.make, []

    def full(*arguments):
        calls.append(1)
        if len(calls) > 35:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(Maker, "make", full)
    with pytest.raises(UserError, match="No space left on device"):
        make(tmp_path / "full", count=40)
    assert not (tmp_path / "full/manifest.csv").exists()
    monkeypatch.setattr(Maker, "make", real)
    make(tmp_path / "full", count=40)
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


@pytest.mark.parametrize("method", ["meanstd", "hist"])
def test_real_photos_give_visible_shifts_of_many_categories(tmp_path, method):
    if "NRH_TEST_DATA" not in os.environ:
        pytest.skip("NRH_TEST_DATA is not set")
    data = Path(os.environ["NRH_TEST_DATA"]) / "coco-mini"
    annotations = data / "annotations/instances_val2017.json"
    generate(data / "val2017", annotations, tmp_path, 60, 0, method, say=lambda line: None)
    with (tmp_path / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    categories = Counter(row["category"] for row in rows)
    assert len(categories) > 10
    assert categories["person"] < 30
    shifts = np.array([float(row["shift_stops"]) for row in rows])
    assert min((shifts > 0.22).sum(), (shifts < -0.22).sum()) > 10
    assert np.mean([float(row["clipped_share"]) for row in rows]) < 0.3
    assert (tmp_path / "COCOExp/candidates_test.jsonl").read_text().startswith('{"schema": 2')
    assert len(layouts.index(layouts.Source(tmp_path))) == 60


def test_train_and_val_are_made_of_different_photos(make, tmp_path):
    make(tmp_path, split="train", val_fraction=0.4)
    make(tmp_path, split="val", val_fraction=0.4, count=6)
    with (tmp_path / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    photos = {split: set() for split in ("train", "val")}
    for row in rows:
        photos[row["split"]] |= {row["photo_id"], row["reference_photo_id"]}
    assert [row["split"] for row in rows] == ["train"] * 12 + ["val"] * 6
    assert photos["train"] and photos["val"] and not photos["train"] & photos["val"]
    samples = layouts.index(layouts.Source(tmp_path))
    assert [sample.split for sample in samples] == ["train"] * 12 + ["val"] * 6
    with pytest.raises(UserError, match=r"val_fraction: 0\.4 -> 0\.5"):
        make(tmp_path, split="train", val_fraction=0.5)


@pytest.mark.parametrize(
    ("split", "share", "expected"),
    [("val", 0.0, "give --val-fraction"), ("test", 0.1, "test takes all photos"), ("train", 1.0, "below 1")],
)
def test_a_share_that_makes_no_sense_is_refused(make, tmp_path, split, share, expected):
    with pytest.raises(UserError, match=expected):
        make(tmp_path, split=split, val_fraction=share)
