import os
from pathlib import Path

import pytest
from trees import make_tree

from nrh_dist.data.iharmony4 import group_of, split_name
from nrh_dist.data.layouts import Source, index, scan
from nrh_dist.data.samples import Sample, by_photo, is_held_out, leaked_groups
from nrh_dist.errors import UserError


def test_files_and_order(tmp_path: Path) -> None:
    named = {
        "HFlickr": {"train": ["f10_1_2.jpg"], "test": ["f11_1_1.jpg"]},
        "HCOCO": {"test": ["c7_900100000123_1.jpg"], "train": ["c9_8_2.jpg", "c9_8_1.jpg"]},
    }
    samples = index(Source(make_tree(tmp_path, named)))
    assert [(s.dataset, s.split, s.name) for s in samples] == [
        ("HCOCO", "train", "c9_8_2"),
        ("HCOCO", "train", "c9_8_1"),
        ("HCOCO", "test", "c7_900100000123_1"),
        ("HFlickr", "train", "f10_1_2"),
        ("HFlickr", "test", "f11_1_1"),
    ]
    coco = tmp_path / "HCOCO"
    assert samples[2].composite == coco / "composite_images" / "c7_900100000123_1.jpg"
    assert samples[2].mask == coco / "masks" / "c7_900100000123.png"
    assert samples[2].real == coco / "real_images" / "c7.jpg"


def test_names_are_split_at_their_last_two_underscores() -> None:
    assert split_name("d90000014-8_12_1") == ("d90000014-8", "12", "1")
    assert split_name("my_holiday_photo_3_1") == ("my_holiday_photo", "3", "1")
    for bad in ("c1_2", "plain", "__1", "a__1"):
        with pytest.raises(ValueError, match="not of the form"):
            split_name(bad)


def test_groups() -> None:
    assert group_of("HCOCO", "c000000012_5_1") == group_of("COCOExp", "c12_900100000123_2") == "coco:12"
    assert group_of("Hday2night", "d1048-20120628-200951_1_1") == "day2night:d1048-20120628"
    assert group_of("Hday2night", "d16761-82_1_1") == group_of("Hday2night", "d16761-9_2_3") == "day2night:d16761"
    assert group_of("HAdobe5k", "a0001_1_1") == "HAdobe5k:a0001"
    assert group_of("Mine", "c12_1_1") == "Mine:c12", "only the COCO sub-sets share ids"


def test_lists_of_the_root_alone_and_unknown_subsets(tmp_path: Path) -> None:
    named = {"Mine": {"train": ["a-b_1_1.jpg"], "test": ["a-c_1_1.jpg"]}}
    root = make_tree(tmp_path, named, own_lists=False, ihd=True)
    with open(root / "IHD_train.txt", "a") as file:
        file.write("\nHCOCO/composite_images/c1_1_1.jpg\r\n")  # a sub-set that was not downloaded
    assert [(s.dataset, s.split, s.group) for s in index(Source(root))] == [
        ("Mine", "train", "Mine:a-b"),
        ("Mine", "test", "Mine:a-c"),
    ]


@pytest.mark.parametrize("own_lists", [True, False])
def test_the_folder_of_one_subset_is_enough(own_lists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own list, or by the lines of the root's that are about it."""
    named = {"HCOCO": {"test": ["c7_9_1.jpg"]}, "Mine": {"train": ["a_1_1.jpg"], "test": ["b_1_1.jpg"]}}
    root = make_tree(tmp_path / "root", named, own_lists=own_lists, ihd=True)
    together = index(Source(root))
    assert [s.dataset for s in together] == ["HCOCO", "Mine", "Mine"]
    assert index(Source(root / "Mine")) == together[1:] and index(Source(root / "HCOCO")) == together[:1]
    monkeypatch.chdir(root / "Mine")
    assert index(Source(Path("."))) == together[1:]
    (tmp_path / "Link").symlink_to(root / "HCOCO")
    if own_lists:
        with pytest.raises(UserError, match="no list names a composite of Link"):
            index(Source(tmp_path / "Link"))


def test_own_list_comes_before_the_root_list_and_lines_count_once(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"S": {"train": ["a_1_1.jpg", "b_1_1.jpg"]}}, ihd=True)
    (root / "S" / "S_train.txt").write_text("\ufeffb_1_1.jpg\r\nS/composite_images/b_1_1.jpg\n")
    assert [s.name for s in index(Source(root))] == ["b_1_1"]


def test_extensions_in_any_case(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"S": {"train": ["a_1_1.jpg", "b_2_1.jpg"]}})
    for old, new in [
        ("composite_images/a_1_1.jpg", "composite_images/a_1_1.JPG"),
        ("masks/a_1.png", "masks/a_1.PNG"),
        ("real_images/a.jpg", "real_images/a.Jpeg"),
        ("real_images/b.jpg", "real_images/b.png"),
    ]:
        os.rename(root / "S" / old, root / "S" / new)
    first, second = index(Source(root))
    assert (first.composite.name, first.mask.name, first.real.name) == ("a_1_1.JPG", "a_1.PNG", "a.Jpeg")
    assert second.real.name == "b.png"


@pytest.mark.parametrize(
    "line",
    [
        "../S/composite_images/a_1_1.jpg",
        "../composite_images/a_1_1.jpg",
        "/composite_images/a_1_1.jpg",
        "..\\a_1_1.jpg",
    ],
)
@pytest.mark.parametrize("list_name", ["IHD_train.txt", "S/S_train.txt"])
def test_lines_that_leave_the_root_are_refused(tmp_path: Path, line: str, list_name: str) -> None:
    root = make_tree(tmp_path / "root", {"S": {"train": ["a_1_1.jpg"]}})
    with open(root / list_name, "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=rf"{list_name}: line \d, .*leaves the data folder"):
        index(Source(root))
    samples, problems = scan(Source(root))
    assert [s.name for s in samples] == ["a_1_1"]
    assert [problem.path for problem in problems] == [root / list_name]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("T/composite_images/a_1_1.jpg", "must be a composite's file name"),
        ("masks/a_1_1.jpg", "must be a composite's file name"),
        ("a_1_1.gif", "must end in"),
        ("a_1.jpg", "is not of the form <real>_<mask>_<k>"),
    ],
)
def test_lines_of_another_form_are_refused(tmp_path: Path, line: str, rule: str) -> None:
    root = make_tree(tmp_path, {"S": {"train": ["a_1_1.jpg"]}})
    (root / "S/S_train.txt").write_text(f"a_1_1.jpg\n\n{line}\n")
    with pytest.raises(UserError, match=rf"S_train\.txt: line 3, '{line}', .*{rule}"):
        index(Source(root))


def test_missing_files_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"S": {"train": ["a_1_1.jpg", "a_1_2.jpg", "b_1_1.jpg"]}})
    (root / "S/real_images/a.jpg").unlink()  # used by two composites, one missing file
    (root / "S/masks/b_1.png").unlink()
    with pytest.raises(UserError, match=r"2 files are missing.*real_images/a\.jpg: is missing.*nrh data verify"):
        index(Source(root))


def test_roots_without_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data folder at"):
        index(Source(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="has no known layout"):
        index(Source(tmp_path))
    root = make_tree(tmp_path, {"S": {"train": []}})
    with pytest.raises(UserError, match="no list names a composite of S"):
        index(Source(root))


def test_validation_takes_whole_groups_near_the_fraction_and_depends_on_the_seed() -> None:
    groups = [f"coco:{i}" for i in range(20_000)]
    held = [is_held_out(group, 0.05, seed=0) for group in groups]
    assert abs(sum(held) / len(held) - 0.05) < 0.005  # 3 standard deviations
    assert held != [is_held_out(group, 0.05, seed=1) for group in groups]
    wider = [is_held_out(group, 0.1, seed=0) for group in groups]
    assert all(w for h, w in zip(held, wider, strict=True) if h), "a larger fraction keeps what a smaller one held out"
    pinned = [is_held_out(group, 0.5, 7) for group in ("coco:1", "coco:2", "coco:3", "HFlickr:f1")]
    assert pinned == [True, True, False, True], "the division must never change under a trained model"
    assert not any(is_held_out(group, 0.0, 0) for group in groups)


def test_leaks_are_counted_by_training_subset(tmp_path: Path) -> None:
    named = {
        "COCOExp": {"train": ["c000000005_1_1.jpg"], "test": ["c6_1_1.jpg"]},
        "HCOCO": {"train": ["c6_2_1.jpg", "c6_2_2.jpg", "c7_1_1.jpg"], "test": ["c7_3_1.jpg", "c5_1_1.jpg"]},
        "HFlickr": {"train": ["f1_1_1.jpg"], "test": ["f2_1_1.jpg"]},
    }
    assert leaked_groups(index(Source(make_tree(tmp_path, named)))) == {"COCOExp": 1, "HCOCO": 2}


def test_chunks_hold_each_position_once_and_share_no_photo(tmp_path: Path) -> None:
    names = [f"c{i % 5}_1_{i}.jpg" for i in range(17)]
    samples = index(Source(make_tree(tmp_path, {"HCOCO": {"train": names[:10], "test": names[10:]}})))
    chunks = by_photo(samples, at_least=6)
    assert sorted(position for chunk in chunks for position in chunk) == list(range(17))
    assert all(len(chunk) >= 6 for chunk in chunks[:-1]) and len(chunks) == 3
    photos = [{samples[position].real for position in chunk} for chunk in chunks]
    assert sum(map(len, photos)) == len(set.union(*photos)) == 5
    assert by_photo([], 6) == []


def test_true_names_of_iharmony4() -> None:
    if "NRH_TEST_DATA" not in os.environ:
        pytest.skip("NRH_TEST_DATA is not set")
    samples = []
    for split in ("train", "test"):
        for line in (Path(os.environ["NRH_TEST_DATA"]) / f"iharmony4-lists/le50_{split}.txt").read_text().splitlines():
            dataset, _, file = line.split("/")
            name = file.removesuffix(".jpg")
            assert len(split_name(name)) == 3
            samples.append(Sample(dataset, split, name, Path(), Path(), Path(), group_of(dataset, name)))
    leaks = leaked_groups(samples)
    assert (len(samples), leaks["HCOCO"], leaks["HFlickr"]) == (71_492, 1389, 8)
    trained = [sample for sample in samples if sample.split == "train"]
    assert 0.04 < sum(is_held_out(sample.group, 0.05, 0) for sample in trained) / len(trained) < 0.06


def test_a_val_list_is_a_split_of_its_own(tmp_path: Path) -> None:
    named = {"HCOCO": {"train": _many(4), "val": _many(2, 4), "test": _many(2, 6)}}
    samples = index(Source(make_tree(tmp_path, named)))
    assert [sample.split for sample in samples] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2


def _many(count: int, first: int = 0) -> list[str]:
    """Names of composites, two of each photo."""
    return [f"c{1 + i // 2}_9001_{i % 2}.jpg" for i in range(first, first + count)]
