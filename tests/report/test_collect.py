"""Reading evaluation folders: what is there, what is missing and what is refused."""

import json
from pathlib import Path

import evaluations
import numpy as np
import pytest

from nrh_dist.errors import UserError
from nrh_dist.report import collect
from nrh_dist.report.result import FURTHER, photos_of
from nrh_dist.report.sections import sections


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return evaluations.write(tmp_path / "evaluation", {"Sample": 12})


def test_reads_every_cell_back(folder: Path) -> None:
    evaluation = collect.read(folder)
    rows = evaluations.read_rows(folder)
    for result in evaluation.results:
        mine = [row for row in rows if row[2] == result.run]
        assert [*result.names] == [row[3] for row in mine]
        for i, metric in enumerate(collect.METRICS, start=4):
            expected = [float(row[i] or "nan") for row in mine]
            np.testing.assert_array_equal(getattr(result, metric), expected)


def test_order_is_identity_then_the_papers(tmp_path: Path) -> None:
    models = ("gated", "ptc_dih", "dih_nm", "dih_m")
    evaluation = collect.read(evaluations.write(tmp_path / "e", {"Sample": 4}, models))
    assert [result.model for result in evaluation.results] == ["identity", "dih_m", "dih_nm", "ptc_dih", "gated"]


def test_identity_comes_from_the_columns_where_it_has_no_rows(folder: Path) -> None:
    with_rows = collect.read(folder).results[0]
    evaluations.write_rows(folder, [row for row in evaluations.read_rows(folder) if row[1] != "identity"])
    derived = collect.read(folder).results[0]
    assert derived.model == "identity"
    np.testing.assert_array_equal(derived.mse, with_rows.mse)
    np.testing.assert_array_equal(derived.psnr, with_rows.psnr)
    assert np.isnan(derived.fmse).all()


def test_empty_and_not_finite_cells_are_not_available(folder: Path) -> None:
    rows = evaluations.read_rows(folder)
    rows[0][4], rows[1][4], rows[2][4] = "", "nan", "inf"
    evaluations.write_rows(folder, rows)
    assert np.isnan(collect.read(folder).results[0].mse).tolist()[:4] == [True, True, True, False]


def test_further_columns_are_read_by_name(tmp_path: Path) -> None:
    """Also in another order, and beside a column that this version does not know."""
    folder = evaluations.write(tmp_path / "e", {"COCOExp": 9}, further=True)
    before = collect.read(folder)
    rows = evaluations.read_rows(folder)
    for result in before.results:
        mine = [row for row in rows if row[2] == result.run]
        for i, name in enumerate(evaluations.FURTHER, start=len(evaluations.COLUMNS)):
            cells = [row[i] for row in mine]
            expected = cells if name == "category" else [float(cell or "nan") for cell in cells]
            np.testing.assert_array_equal(getattr(result, name), expected)
    columns = (*evaluations.COLUMNS, "a_new_one", *reversed(evaluations.FURTHER))
    turned = [[*row[: len(evaluations.COLUMNS)], "new", *reversed(row[len(evaluations.COLUMNS) :])] for row in rows]
    evaluations.write_rows(folder, turned, columns)
    for one, other in zip(collect.read(folder).results, before.results, strict=True):
        for name in evaluations.FURTHER:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_what_an_older_evaluation_lacks_is_not_available(folder: Path) -> None:
    evaluation = collect.read(folder)
    assert evaluation.provenance is None
    assert evaluation.strips.rules == {}
    assert (evaluation.strips.strips[0].group, evaluation.strips.strips[0].change) == ("", None)
    for result in evaluation.results:
        assert not any(result.has(name) for name in FURTHER)
        assert set(result.category) == {""}


def test_identity_from_the_columns_keeps_what_is_of_the_image(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", {"COCOExp": 9}, further=True)
    rows = [row for row in evaluations.read_rows(folder) if row[1] != "identity"]
    evaluations.write_rows(folder, rows, evaluations.COLUMNS + evaluations.FURTHER)
    identity, other, *_ = collect.read(folder).results
    np.testing.assert_array_equal(identity.shift_stops, other.shift_stops)
    np.testing.assert_array_equal(identity.category, other.category)
    assert not identity.has("correction") and not identity.has("detected")


def test_a_photo_is_what_stands_before_the_last_two_underscores() -> None:
    names = ["c1_2_3", "c1_9_1", "d1-2_x_10_1", "d1-2_y_10_1", "c1_2_3"]
    assert photos_of(["A"] * 4 + ["B"], names, [""] * 5).tolist() == [0, 0, 1, 2, 3]


def test_a_photo_is_the_group_that_the_evaluation_wrote(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", {"Mine": 4}, strips=0)
    names = ["IMG_20230101_120000", "IMG_20230101_130000", "IMG_20240101_120000", "IMG_20240101_130000"]
    rows = evaluations.read_rows(folder)
    for i, row in enumerate(rows):
        row[3] = names[i % 4]
    evaluations.write_rows(folder, rows)
    assert collect.read(folder).results[0].photos.tolist() == [0, 0, 0, 0], "an old file says no more than the name"
    rows = [[*row, row[3]] for row in rows]
    evaluations.write_rows(folder, rows, (*evaluations.COLUMNS, "group"))
    assert [one.photos.tolist() for one in collect.read(folder).results] == [[0, 1, 2, 3]] * 3


def test_runs_are_brought_into_one_order(folder: Path) -> None:
    before = collect.read(folder).results
    rows = evaluations.read_rows(folder)
    evaluations.write_rows(folder, [*rows[:24], *rows[:23:-1]])
    for one, other in zip(collect.read(folder).results, before, strict=True):
        np.testing.assert_array_equal(one.names, other.names)
        np.testing.assert_array_equal(one.mse, other.mse)


def test_provenance_and_groups_of_strips(tmp_path: Path) -> None:
    evaluation = collect.read(evaluations.write(tmp_path / "e", strips=3, further=True))
    provenance = evaluation.provenance
    assert provenance.command.startswith("nrh evaluate runs/")
    assert provenance.training["ptc_dih-seed0"].device_hours == 3.0
    assert provenance.environment["torch"] == "2.14.0"
    assert [strip.group for strip in evaluation.strips.strips] == ["best", "worst", "not detected"]
    assert set(evaluation.strips.rules) == {"best", "worst", "not detected"}


def test_strips_may_be_missing(tmp_path: Path) -> None:
    assert collect.read(evaluations.write(tmp_path / "e", strips=0)).strips is None


def test_sections_never_mix_collections(tmp_path: Path) -> None:
    datasets = {"HFlickr": 4, "COCOExp": 5, "HCOCO": 6, "Sample": 7, "Other": 8}
    one = collect.read(evaluations.write(tmp_path / "one", datasets, strips=5))
    two = collect.read(evaluations.write(tmp_path / "two", {"COCOExp": 3}, strips=0))
    found = sections([one, two])
    assert [(s.slug, s.collection, s.datasets, len(s.identity)) for s in found] == [
        ("iharmony4", "iHarmony4", ("HCOCO", "HFlickr"), 10),
        ("coco-exp", "COCO-Exp", ("COCOExp",), 5),
        ("sample-other", None, ("Sample", "Other"), 15),
        ("coco-exp-2", "COCO-Exp", ("COCOExp",), 3),
    ]
    assert [len(section.strips) for section in found] == [2, 1, 2, 0]
    assert found[3].title == "COCO-Exp, two"


def test_each_section_has_an_address_of_its_own(tmp_path: Path) -> None:
    names = ("Demo 2", "Demo", "Demo", "Demo 2", "Demo-detector")
    found = sections([
        collect.read(evaluations.write(tmp_path / str(i), {name: 3}, strips=0)) for i, name in enumerate(names)
    ])  # fmt: skip
    assert [one.slug for one in found] == ["demo-2", "demo", "demo-3", "demo-2-2", "demo-detector"]
    assert [one.title for one in found] == ["Demo 2", "Demo", "Demo, 2", "Demo 2, 3", "Demo-detector"]


def test_runs_of_one_model_are_told_apart(folder: Path) -> None:
    rows = evaluations.read_rows(folder)
    rows += [[row[0], row[1], "another", *row[3:]] for row in rows if row[1] == "ptc_dih"]
    evaluations.write_rows(folder, rows)
    labels = sections([collect.read(folder)])[0].labels
    assert labels["another"] == "PTC-DIH, another"
    assert labels["dih_m-seed0"] == "DIH-M"


def no_summary(folder: Path) -> None:
    (folder / "summary.json").unlink()


def other_schema(folder: Path) -> None:
    evaluations.edit_summary(folder, schema=2)


def not_json(folder: Path) -> None:
    (folder / "summary.json").write_text('{"schema": 1,')


def no_size(folder: Path) -> None:
    values = json.loads((folder / "summary.json").read_text())
    del values["size"]
    evaluations.write_json(folder / "summary.json", values)


def no_images(folder: Path) -> None:
    evaluations.write_rows(folder, [])


def other_columns(folder: Path) -> None:
    evaluations.write_rows(folder, [], columns=("dataset", "name"))


def cut_row(folder: Path) -> None:
    path = folder / "per_image.csv"
    path.write_text(path.read_text()[:-30])


def lost_row(folder: Path) -> None:
    evaluations.write_rows(folder, evaluations.read_rows(folder)[:-1])


def other_image(folder: Path) -> None:
    rows = evaluations.read_rows(folder)
    rows[-1][3] = "c99_99_1"
    evaluations.write_rows(folder, rows)


def broken_provenance(folder: Path) -> None:
    evaluations.write_json(folder / "provenance.json", {"schema": 1, "command": 3})


def repeated_row(folder: Path) -> None:
    rows = evaluations.read_rows(folder)
    evaluations.write_rows(folder, [*rows, rows[-1]])


def word_in_a_number(folder: Path) -> None:
    rows = evaluations.read_rows(folder)
    rows[2][4] = "12,5"
    evaluations.write_rows(folder, rows)


def binary(folder: Path) -> None:
    (folder / "per_image.csv").write_bytes(b"\xff\xfe\x00dataset")


def lost_strip(folder: Path) -> None:
    (folder / "strips" / "0000-real.png").unlink()


def escaping_strip(folder: Path) -> None:
    path = folder / "strips" / "strips.json"
    path.write_text(path.read_text().replace("0000-real.png", "../summary.json"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_summary, "not an evaluation folder"),
        (other_schema, "has schema 2"),
        (not_json, "not readable JSON"),
        (no_size, "`size`"),
        (no_images, "holds no images"),
        (other_columns, "must have the columns"),
        (cut_row, "line 37 has"),
        (lost_row, "12 images of Sample, but per_image.csv has 11 of run ptc_dih-seed0"),
        (other_image, "other images of run ptc_dih-seed0 than of run identity"),
        (broken_provenance, "provenance.json is not as expected"),
        (repeated_row, "repeats Sample/"),
        (word_in_a_number, "line 4: '12,5' is not a number"),
        (binary, "not a readable CSV"),
        (lost_strip, "'0000-real.png'"),
        (escaping_strip, "'../summary.json'"),
    ],
)
def test_damage_is_refused_in_one_line(folder: Path, damage, says: str) -> None:
    damage(folder)
    with pytest.raises(UserError) as caught:
        collect.read(folder)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
