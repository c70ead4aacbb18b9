"""``nrh data coco-exp`` as a user meets it: what it says and leaves behind, and one clear line for bad input."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_codec
from test_cli import mistake, nrh

from nrh_dist.data.coco_exp import COLUMNS
from nrh_dist.engine.lock import locked
from nrh_dist.report import coco_exp as report

SQUARE = [[5, 5, 45, 5, 45, 35, 5, 35]]


class Coco:
    """A folder of photos with random pixels, and annotations of one object each unless told otherwise."""

    def __init__(self, root):
        self.root = root
        (root / "photos").mkdir()
        self.content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }

    def add(self, category=1, segmentation=SQUARE, mode="RGB", name=None, **more):
        number = len(self.content["images"]) + 1
        name = name or f"{number}.jpg"
        level = 60 + 25 * (number % 5)
        noise = np.random.default_rng(number).integers(-30, 30, (40, 50, 3))
        photo = Image.fromarray((level + noise).astype(np.uint8))
        if mode == "16 bit":
            Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 256).save(self.root / "photos" / name)
        else:
            photo.convert(mode).save(self.root / "photos" / name)
        self.content["images"].append({"id": number, "file_name": name, "width": 50, "height": 40})
        self.annotate(number, category, segmentation, **more)
        return self

    def annotate(self, photo, category=1, segmentation=SQUARE, **more):
        number = len(self.content["annotations"]) + 1
        self.content["annotations"].append(
            {
                "id": number,
                "image_id": photo,
                "category_id": category,
                "area": 1200,
                "segmentation": segmentation,
                **more,
            }
        )

    def words(self, count=2, **options):
        (self.root / "a.json").write_text(json.dumps(self.content))
        given = {"images": "photos", "annotations": "a.json", "out": "out", "count": count, **options}
        return ["data", "coco-exp", *(word for key, value in given.items() for word in (f"--{key}", str(value)))]


@pytest.fixture
def coco(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Coco(tmp_path)


def composites(root):
    return sorted(path.name for path in (root / "out/COCOExp/composite_images").iterdir())


def test_a_set_comes_with_its_summary_and_its_picture(coco, capsys):
    for category in (1, 1, 2, 2, 1):
        coco.add(category)
    code, said, _ = nrh(capsys, *coco.words(count=6))
    assert code == 0
    assert "made        6" in said and "the paper's" in said and "distributions_test.png" in said
    assert sorted(path.name for path in (coco.root / "out").iterdir()) == [
        *(".lock", "COCOExp", "IHD_test.txt", "distributions_test.png", "manifest.csv")
    ]
    assert len(composites(coco.root)) == 6


def test_a_picture_that_cannot_be_written_is_one_line_and_leaves_the_old_one(coco, capsys, monkeypatch):
    coco.add().add().add()
    assert nrh(capsys, *coco.words())[0] == 0
    before = {path.name: path.read_bytes() for path in (coco.root / "out").iterdir() if path.is_file()}

    def full(data, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(report, "draw", full)
        assert "distributions_test.png: No space left on device" in mistake(capsys, *coco.words())
    assert {path.name: path.read_bytes() for path in (coco.root / "out").iterdir() if path.is_file()} == before
    (coco.root / "out/distributions_test.png").unlink()
    (coco.root / "out/distributions_test.png").mkdir()
    assert "distributions_test.png: Is a directory" in mistake(capsys, *coco.words())
    assert not list((coco.root / "out").glob(".*.png"))


@pytest.mark.parametrize("channels", ["l", "lab"])
@pytest.mark.parametrize("method", ["meanstd", "hist"])
def test_every_method_and_all_of_lab(coco, capsys, method, channels):
    coco.add().add().add()
    code, said, _ = nrh(capsys, *coco.words(count=6, method=method, channels=channels, format="png"))
    assert code == 0 and "made        6" in said
    with (coco.root / "out/manifest.csv").open() as file:
        assert file.read().count(f",{method},{channels},0\n") == 6


def run_lengths(compressed):
    drawn = np.zeros((40, 50), np.uint8)
    drawn[5:35, 5:45] = 1
    if compressed:
        return {"size": [40, 50], "counts": rle_codec.encode(np.asfortranarray(drawn))["counts"].decode()}
    edges = np.flatnonzero(np.diff(drawn.T.ravel(), prepend=0, append=2))
    return {"size": [40, 50], "counts": np.diff(edges, prepend=0).tolist()}


def test_all_kinds_of_segmentations_and_photos(coco, capsys):
    coco.add().add(segmentation=run_lengths(True)).add(segmentation=run_lengths(False))
    coco.add(mode="L").add(mode="CMYK").add(mode="16 bit", name="6.png").add(mode="RGBA", name="7.png")
    coco.annotate(1, segmentation=run_lengths(False), iscrowd=1)
    code, said, _ = nrh(capsys, *coco.words(count=42, format="png"))
    assert code == 0
    assert "7 objects (1 crowd left out), 42 candidate pairs" in said
    assert "made        42" in said and "rejected    0" in said


def test_empty_masks_and_other_sizes_are_counted(coco, capsys):
    coco.add().add().add().add(segmentation=[]).add()
    coco.content["images"][4]["width"] = 51
    code, said, _ = nrh(capsys, *coco.words(count=4))
    assert code == 0
    assert "5.jpg: is 50x40 pixels, but its annotations are for 51x40" in said
    assert " empty" in said and " unreadable" in said and "made        4" in said


def test_a_category_of_one_photo_is_left_out(coco, capsys):
    coco.add(1).add(1).add(2)
    code, said, _ = nrh(capsys, *coco.words(count=2))
    assert code == 0 and "3 objects (0 left out), 2 candidate pairs" in said
    assert all(name.startswith(("c1_", "c2_")) for name in composites(coco.root))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a COCO file"),
        ("", "not a COCO file"),
        ('{"images": [], "categories": []}', "annotations"),
        ('{"annotations": [], "categories": []}', "images"),
        ('{"annotations": [], "categories": [], "images": []}', "no pair of objects"),
    ],
)
def test_annotations_that_are_none(coco, capsys, content, message):
    words = coco.words()
    (coco.root / "a.json").write_text(content)
    assert message in mistake(capsys, *words)
    assert not (coco.root / "out").exists()


def test_one_photo_gives_no_pair(coco, capsys):
    coco.add()
    coco.annotate(1)
    assert "no pair of objects" in mistake(capsys, *coco.words(count=1))
    assert not (coco.root / "out").exists()


def test_more_than_there_are(coco, capsys):
    coco.add().add().add()
    assert "give 6 candidate pairs" in mistake(capsys, *coco.words(count=7))
    assert not (coco.root / "out").exists()


def test_a_missing_photo_is_named(coco, capsys):
    coco.add().add().add()
    (coco.root / "photos/2.jpg").unlink()
    assert "1 of 3 photos are missing" in mistake(capsys, *coco.words())
    assert not (coco.root / "out").exists()


def test_too_few_usable_pairs_leave_no_list(coco, capsys):
    coco.add().add().add(segmentation=[])
    assert "count=5: of 6 candidate pairs 2 can be made (4 empty rejected); ask for at most 2" in mistake(
        capsys, *coco.words(count=5)
    )
    assert not (coco.root / "out/manifest.csv").exists()
    assert nrh(capsys, *coco.words(count=2))[0] == 0


@pytest.mark.parametrize("out", ["taken", "taken/inner", "/proc/out"])
def test_an_output_that_cannot_be_written(coco, capsys, out):
    coco.add().add()
    (coco.root / "taken").write_text("a file")
    assert "cannot write to" in mistake(capsys, *coco.words(out=out))
    assert (coco.root / "taken").read_text() == "a file"


@pytest.mark.parametrize(
    "content",
    [
        *("", "name,size\na,1\n", "composite,split\nc1.jpg,test\n", "\0\xff"),
        *(
            ",".join(COLUMNS) + "\n" + row
            for row in ("a.jpg,test\n", "a.jpg,dev" + ",1" * 13, "a.jpg,test" + ",1" * 14)
        ),
    ],
)
def test_a_foreign_manifest_is_refused_before_work_starts(coco, capsys, content):
    coco.add().add()
    manifest = coco.root / "out/manifest.csv"
    manifest.parent.mkdir()
    manifest.write_text(content, encoding="latin-1")
    assert "manifest.csv is not a manifest of COCO-Exp" in mistake(capsys, *coco.words())
    assert manifest.read_text(encoding="latin-1") == content
    assert not (coco.root / "out/COCOExp").exists()


def test_a_manifest_that_is_a_folder(coco, capsys):
    coco.add().add()
    (coco.root / "out/manifest.csv").mkdir(parents=True)
    assert "cannot write to" in mistake(capsys, *coco.words())


def test_two_runs_at_once(coco, capsys):
    coco.add().add()
    with locked(coco.root / "out"):
        assert "in use by another process" in mistake(capsys, *coco.words())
    assert [path.name for path in (coco.root / "out").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "--workers"),
        ({"count": 0}, "--count"),
        ({"count": -3}, "--count"),
        ({"seed": -1}, "--seed"),
        ({"method": "magic"}, "'magic'"),
        ({"channels": "rgb"}, "'rgb'"),
        ({"format": "gif"}, "'gif'"),
        ({"split": "dev"}, "'dev'"),
        ({"split": "val"}, "give --val-fraction"),
        ({"annotations": "none.json"}, "none.json"),
        ({"images": "nowhere"}, "2 of 2 photos are missing"),
    ],
)
def test_words_that_mean_nothing(coco, capsys, options, message):
    coco.add().add()
    assert message in mistake(capsys, *coco.words(**options))
    assert not (coco.root / "out").exists()


def test_more_workers_than_this_ray_has(coco, capsys, ray_session):
    coco.add().add()
    assert "64 workers need 64 CPUs" in mistake(capsys, *coco.words(workers=64))
    assert not (coco.root / "out").exists()


def test_more_workers_than_this_machine_has_are_refused_before_anything_is_read(coco, capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = coco.words(workers=500)
    (coco.root / "a.json").write_text("not read")
    assert "500 workers need 500 CPUs" in mistake(capsys, *words)
