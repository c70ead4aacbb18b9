import os
from pathlib import Path

import pytest
from PIL import Image
from trees import bomb, make_tree, many

from nrh_dist.data.layouts import Source
from nrh_dist.data.verify import report, verify
from nrh_dist.errors import UserError


def test_a_sound_root_has_no_problem(tmp_path: Path) -> None:
    assert verify(Source(make_tree(tmp_path, {"HCOCO": {"train": many(4), "test": many(4, 2)}}, ihd=True))) == []


def damaged_tree(root: Path) -> tuple[Path, dict[str, str]]:
    """A root with one problem of each kind, and the reason that belongs to each path."""
    make_tree(root, {"HCOCO": {"train": many(20)}}, ihd=True)
    coco = root / "HCOCO"
    (coco / "composite_images/c1_9001_0.jpg").unlink()
    (coco / "masks/c2_9001.png").write_bytes(b"")
    real = coco / "real_images/c3.jpg"
    real.write_bytes(real.read_bytes()[:-30])
    Image.new("RGB", (24, 15)).save(coco / "composite_images/c4_9001_1.jpg")
    Image.new("L", (16, 24)).save(coco / "masks/c5_9001.png")
    (coco / "real_images/c6.jpg").write_bytes(bomb(20_000, 20_000))
    (coco / "composite_images/c7_9001_0.jpg").write_text("not a photo")
    with open(root / "IHD_train.txt", "a") as file:
        file.write("../../etc/composite_images/c1_1_1.jpg\n")
    return root, {
        "IHD_train.txt": "leaves the data folder",
        "HCOCO/composite_images/c1_9001_0.jpg": "is missing",
        "HCOCO/masks/c2_9001.png": "is empty",
        "HCOCO/real_images/c3.jpg": "is truncated",
        "HCOCO/composite_images/c4_9001_1.jpg": "is 24x15 pixels, but its real photo c4.jpg is 24x16",
        "HCOCO/masks/c5_9001.png": "is 16x24 pixels, but its real photo c5.jpg is 24x16",
        "HCOCO/real_images/c6.jpg": "claims too many pixels",
        "HCOCO/composite_images/c7_9001_0.jpg": "is not a JPEG or PNG image",
    }


def test_each_kind_of_problem_is_named_once_and_nothing_else(tmp_path: Path) -> None:
    root, expected = damaged_tree(tmp_path / "root")
    found = {str(problem.path.relative_to(root)): problem.reason for problem in verify(Source(root))}
    assert found.keys() == expected.keys()
    for path, reason in expected.items():
        assert reason in found[path]
    assert len(verify(Source(root))) == len(expected)


def test_several_processes_find_the_same_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _ = damaged_tree(tmp_path / "root")
    monkeypatch.setattr("nrh_dist.data.verify.CHUNK", 5)
    assert verify(Source(root), workers=2) == verify(Source(root), workers=1)


def test_report_says_a_line_for_each_problem(tmp_path: Path) -> None:
    root, expected = damaged_tree(tmp_path / "root")
    lines: list[str] = []
    assert report(Source(root), lines.append) is False
    assert len(lines) == len(expected) + 1 and all("\n" not in line for line in lines)
    for path, reason in expected.items():
        assert any(line.startswith(f"{root / path}: ") and reason in line for line in lines)
    assert lines[-1] == f"20 samples listed in {root}: 8 problems"


def test_report_of_a_sound_root_names_its_leaks(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"HCOCO": {"train": many(4), "test": many(2, first=3)}})
    lines: list[str] = []
    assert report(Source(root), lines.append) is True
    assert lines == [
        "HCOCO: 1 photos or scenes are in both train and test or val (data.drop_leaked=true leaves them out)",
        f"6 samples listed in {root}: 0 problems",
    ]


def test_nothing_to_check_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no known layout"):
        verify(Source(tmp_path))


def test_the_photos_at_hand_are_sound() -> None:
    if "NRH_TEST_DATA" not in os.environ:
        pytest.skip("NRH_TEST_DATA is not set")
    assert verify(Source(Path(os.environ["NRH_TEST_DATA"]) / "iharmony4-mini"), workers=1) == []
