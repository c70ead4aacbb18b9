"""``nrh bench``: each part on small data, and the refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import mistake, nrh

from nrh_dist.data import coco
from nrh_dist.data.pairs import eligible
from nrh_dist.errors import UserError
from nrh_dist.workflows import bench, bench_generate, made_up, measure, naive


def test_the_made_up_annotations_have_the_shape_of_cocos(tmp_path):
    made_up.write(tmp_path / "a.json", images=400, annotations=3000)
    instances = coco.load(tmp_path / "a.json")
    assert (len(instances.images), len(instances.annotations), len(instances.categories)) == (400, 3000, 80)
    assert 470 < (tmp_path / "a.json").stat().st_size / 3000 < 620  # bytes an annotation; COCO's own has 546
    objects, left_out = eligible(instances, Path("photos"))
    assert 0.35 < len(objects) / 3000 < 0.6
    assert left_out["crowd"] > 10
    assert 20 < sum(one.segmentation.count(b",") + 1 for one in objects) / len(objects) / 2 < 40  # points
    assert len(naive.open_annotations(tmp_path / "a.json").anns) == 3000


@pytest.mark.slow
def test_generate_measures_everything_on_sample_data(capsys, tmp_path, monkeypatch, ray_session):
    full_size = made_up.write
    monkeypatch.setattr(made_up, "write", lambda path: full_size(path, 3000, 120_000))
    monkeypatch.setattr(bench_generate, "PAPER_COUNT", 1000)
    code, said, _ = nrh(capsys, "bench", "generate", "--count", "20", "--out", str(tmp_path / "bench.json"))
    assert code == 0
    kept = json.loads((tmp_path / "bench.json").read_text())["benches"]["generate"]
    assert kept["command"] == "nrh bench generate --count 20"
    found = {figure["name"]: figure for figure in kept["figures"]}
    assert [*found] == ["speed", "speed (PNG)", "scaling to two workers", "loading annotations", "memory"]
    assert found["speed"]["target"] is None and found["speed"]["ratio"] > 2  # sample photos are too small for it
    assert found["scaling to two workers"]["target"] == 0.9
    assert found["loading annotations"]["target"] == 5 and found["loading annotations"]["ratio"] > 3
    assert "MiB a worker" in found["memory"]["note"]
    assert all(found[name]["floor"] > 1 for name in ("speed", "speed (PNG)"))
    assert said.count("reached") == 2


@pytest.fixture
def fake_benches(monkeypatch):
    figure = measure.figure("a", [1.0], None, "b", "seconds")
    benches = {
        "generate": lambda given, say: [figure],
        "step": lambda given, say: [figure] * 2,
        "loader": lambda given, say: [figure] * given.count,
    }
    monkeypatch.setattr(bench, "BENCHES", benches)


def commands(path):
    return [one["command"] for one in json.loads(path.read_text())["benches"].values()]


def test_all_runs_every_bench_and_each_keeps_its_own_command(tmp_path, fake_benches):
    path = tmp_path / "a.json"
    assert len(bench.run("step", bench.Input(), path, print)) == 2
    assert commands(path) == ["nrh bench step"]
    given = bench.Input(tmp_path / "my photos", tmp_path / "a.json", 30, tmp_path / "set")
    assert len(bench.run("all", given, path, print)) == 33
    assert commands(path) == [
        "nrh bench step",
        "nrh bench generate --images 'my photos' --annotations a.json --count 30",
        "nrh bench loader --data set",
    ]


def test_what_was_measured_before_a_bench_failed_is_kept(tmp_path, fake_benches, monkeypatch):
    def fail(given, say):
        raise UserError("no")

    monkeypatch.setitem(bench.BENCHES, "loader", fail)
    with pytest.raises(UserError, match="no"):
        bench.run("all", bench.Input(), tmp_path / "a.json", print)
    assert commands(tmp_path / "a.json") == ["nrh bench generate", "nrh bench step"]


def test_without_a_name_the_benches_are_listed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = nrh(capsys, "bench")
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()] == [f"nrh bench {one}" for one in [*bench.BENCHES, "all"]]
    assert not [*tmp_path.iterdir()]


def write_coco(root, photos, flat=0):
    """Annotations of one square in each photo, by category; the photos of the first ``flat`` have one colour."""
    rng = np.random.default_rng(0)
    content = {"images": [], "annotations": [], "categories": [{"id": one, "name": str(one)} for one in set(photos)]}
    square = [[5, 5, 45, 5, 45, 35, 5, 35]]
    for number, category in enumerate(photos, 1):
        picture = np.full((40, 50, 3), 90, np.uint8) if number <= flat else rng.integers(60, 200, (40, 50, 3), np.uint8)
        Image.fromarray(picture).save(root / f"{number}.jpg")
        content["images"].append({"id": number, "file_name": f"{number}.jpg", "width": 50, "height": 40})
        content["annotations"].append(
            {"id": number, "image_id": number, "category_id": category, "area": 1200, "segmentation": square}
        )
    (root / "a.json").write_text(json.dumps(content))


def test_fewer_pairs_than_the_rounds_with_png_need_are_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path, (1, 1, 1, 1, 2, 2, 2))
    words = ("bench", "generate", "--images", ".", "--annotations", "a.json")
    assert "18 usable pairs: too few" in mistake(capsys, *words)
    write_coco(tmp_path, (1, 1, 1, 1, 1), flat=1)
    assert "12 usable pairs: too few" in mistake(capsys, *words)  # 20, of which 8 are rejected


def test_rejected_pairs_are_not_timed(tmp_path):
    write_coco(tmp_path, (1, 1, 1, 1, 1), flat=1)
    pairs = bench_generate._pairs(tmp_path, tmp_path / "a.json", 20)
    assert len(pairs) == 20
    chosen = bench_generate.usable(pairs, 20, tmp_path)
    assert chosen == [pair for pair in pairs if 1 not in (pair.target.photo_id, pair.reference.photo_id)]
    assert bench_generate.usable(pairs, 5, tmp_path) == chosen[:5]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*(f"{one}.jpg" for one in range(1, 6)), "a.json"]
    )


def test_mistakes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "choose from loader, step, ray, evaluate, generate, sweep, trials, harmonise, all" in mistake(
        capsys, "bench", "sleep"
    )
    assert "belong together" in mistake(capsys, "bench", "generate", "--images", ".")
    assert "--data is for nrh bench loader" in mistake(capsys, "bench", "step", "--data", ".")
    assert "--count is for nrh bench generate" in mistake(capsys, "bench", "ray", "--count", "30")
    assert "is a folder" in mistake(capsys, "bench", "generate", "--out", ".")
    assert "--count" in mistake(capsys, "bench", "generate", "--count", "1")
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert "choose another --out" in mistake(capsys, "bench", "step", "--out", "a.json")
    assert "too few" in mistake(capsys, "bench", "generate", "--images", ".", "--annotations", "a.json")
    monkeypatch.setattr(naive, "find_spec", lambda name: None)
    assert "scikit-image" in mistake(capsys, "bench", "generate")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
