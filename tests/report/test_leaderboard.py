"""The leaderboard: made from files alone, honest about what they lack, and never out of step with them."""

import json
import re
from pathlib import Path

import evaluations
import numpy as np
import pytest

from nrh_dist.cli import main
from nrh_dist.config import flatten, load
from nrh_dist.errors import UserError
from nrh_dist.report import leaderboard, leaderboard_result
from nrh_dist.report.leaderboard_result import placeless, placeless_command
from nrh_dist.workflows.leaderboard import add, changed, refresh

REPORTS = Path(__file__).parents[2] / "reports"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "reports").mkdir()
    return tmp_path / "reports"


def rows_of(text: str, title: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its two first lines."""
    table = text.split(f"### {title}\n\n", 1)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_committed_leaderboard_is_up_to_date() -> None:
    leaderboard.check(REPORTS)
    assert (REPORTS / "README.md").read_text(encoding="utf-8").splitlines()[0].startswith("<!-- Made by")


def test_what_the_committed_pages_name_is_there() -> None:
    for page in [*REPORTS.glob("*.md"), REPORTS.parent / "README.md"]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            name, _, anchor = target.partition("#")
            found = page.parent / name if name else page
            assert found.exists(), f"{page.name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.M)
                assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_committed_results_name_no_place_and_no_picture() -> None:
    for path in (REPORTS / "results").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"[\"' =]/\w|/tmp|/home|\.png|\.jpg", text), path.name


def test_a_result_holds_the_numbers_of_the_evaluation(folder: Path, tmp_path: Path) -> None:
    datasets = {"HCOCO": 30, "COCOExp": 20}
    one = evaluations.write(tmp_path / "one", datasets, further=True, lpips=None)
    kept = add(folder, one, "one-64", "a note")
    assert kept == folder / "results" / "one-64.json"
    (result,) = leaderboard_result.load(folder)
    assert (result.name, result.note, result.size, result.split) == ("one-64", "a note", 64, "test")
    assert [(each.title, each.collection, each.counts) for each in result.data_sets] == [
        ("iHarmony4", "iHarmony4", {"HCOCO": 30}),
        ("COCO-Exp", "COCO-Exp", {"COCOExp": 20}),
    ]
    rows = [row for row in evaluations.read_rows(one) if row[0] == "HCOCO" and row[1] == "ptc_dih"]
    mse, identity = np.array([(float(row[4]), float(row[9])) for row in rows]).T
    run = result.data_sets[0].runs[2]
    assert (run.model, run.label) == ("ptc_dih", "PTC-DIH")
    assert run.mse == pytest.approx(mse.mean(), abs=1e-4)
    assert run.lpips == pytest.approx(np.mean([float(row[7]) for row in rows]), abs=1e-4)
    assert run.worse1_percent == pytest.approx(100 * (mse - identity > 1).mean(), abs=1e-4)
    assert run.change_percent == pytest.approx(100 * (mse.mean() / identity.mean() - 1), abs=1e-4)
    assert run.mse_interval is not None
    assert run.mse_interval[0] < run.mse < run.mse_interval[1]
    weights = [each.count for each in run.bins]
    assert sum(weights) == 30
    assert np.average([each.mse for each in run.bins], weights=weights) == pytest.approx(run.mse, abs=1e-3)
    assert run.training is not None
    assert run.training.device_hours == 3.0
    assert result.data_sets[0].runs[1].training is None
    assert result.commit == evaluations.PROVENANCE["commit"]


def test_ours_stand_beside_the_published_numbers(folder: Path, tmp_path: Path) -> None:
    one = evaluations.write(tmp_path / "one", {"HCOCO": 30, "Mine": 20}, further=True)
    add(folder, one, "one", "Drawn, no photos.")
    text = refresh(folder, check=False).read_text(encoding="utf-8")
    (result,) = leaderboard_result.load(folder)
    rows = rows_of(text, "iHarmony4")
    ours = [row for row in rows if row[1].startswith("ours")]
    assert [row[0] for row in ours] == ["Identity (input)", "**DIH-M**", "**PTC-DIH**"]
    assert ours[2][5] == f"{result.data_sets[0].runs[2].mse:,.2f}"
    assert ours[1][2] == "yes"
    assert ours[2][1:5] == ["ours: [one](results/one.json)", "", "64", "30"]
    assert ours[2][-1] == "`0123456789`+changes"
    cells = {row[0]: row for row in rows}
    assert cells["PTC-DIH"][1:8] == ["paper, Table 2", "", "256", "7,404", "124", "", "31.39"]
    assert cells["DucoNet"][1:8] == ["as published", "yes", "256", "7,404", "18.47", "", "39.17"]
    assert "1534.94" in text.replace(",", ""), "the paper's Table 3"
    assert len({len(row) for row in rows}) == 1
    assert [row[0] for row in rows_of(text, "Mine")] == ["Identity (input)", "**DIH-M**", "**PTC-DIH**"]
    assert "None of ours yet." in text.split("### COCO-Exp")[1].split("### Mine")[0]
    made = text.split("## How ours were made")[1]
    for words in ("Drawn, no photos.", evaluations.PROVENANCE["command"], "0.067 CPU hours", "LPIPS was not measured",
                  "train.epochs=5 run.name=ptc_dih-seed0`", "1.500 hours, 2 workers, CPU",
                  "HCOCO + Mine: 50 images of 25 photos, test split, 64 × 64 px"):  # fmt: skip
        assert words in made, words


def test_several_results_of_a_data_set_share_a_table(folder: Path, tmp_path: Path) -> None:
    for name, leaves in (("a", 0.5), ("b", 0.9)):
        add(folder, evaluations.write(tmp_path / name, leaves={"ptc_dih": leaves}), None, "")
    rows = rows_of(leaderboard.render(folder), "Sample")
    assert [row[0] for row in rows] == ["Identity (input)", "**DIH-M**", "**PTC-DIH**", "**DIH-M**", "**PTC-DIH**"]
    assert float(rows[2][5]) < float(rows[4][5])
    other = evaluations.write(tmp_path / "c", seed=5)
    add(folder, other, "c", "")
    identities = [row for row in rows_of(leaderboard.render(folder), "Sample") if row[0].startswith("Identity")]
    assert len(identities) == 2, "other images, another error of the input"


def test_doing_nothing_is_listed_once_though_measured_at_two_commits(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        one = evaluations.write(tmp_path / name, further=True)
        made = {**evaluations.PROVENANCE, "commit": (name * 40)}
        evaluations.write_json(one / "provenance.json", made)
        add(folder, one, None, "")
    rows = rows_of(leaderboard.render(folder), "Sample")
    assert [row[0] for row in rows] == ["Identity (input)", "**DIH-M**", "**PTC-DIH**", "**DIH-M**", "**PTC-DIH**"]
    assert {row[-1] for row in rows} == {"`aaaaaaaaaa`", "`bbbbbbbbbb`"}


def test_another_split_is_named(folder: Path, tmp_path: Path) -> None:
    for name, split in (("a", "test"), ("b", "validation")):
        one = evaluations.write(tmp_path / name)
        evaluations.edit_summary(one, split=split)
        add(folder, one, None, "")
    text = leaderboard.render(folder)
    assert "on the test split, where no other is named" in text
    assert {row[1] for row in rows_of(text, "Sample")} == {
        "ours: [a](results/a.json)",
        "ours: [b](results/b.json), validation split",
    }


def test_numbers_that_contradict_their_rows_are_not_added(folder: Path, tmp_path: Path) -> None:
    one = evaluations.write(tmp_path / "one")
    models = json.loads((one / "summary.json").read_text())["models"]
    evaluations.edit_summary(one, models=[{**each, "mse": 7.0} for each in models])
    with pytest.raises(UserError, match=r"states MSE 7\.000"):
        add(folder, one, None, "")
    assert not list(folder.iterdir())


def test_what_the_disk_refuses_is_one_line(folder: Path, tmp_path: Path) -> None:
    one = evaluations.write(tmp_path / "one")
    (folder / "study.md").write_bytes("# Gr\xf6\xdfe\n\nText.\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"study\.md is not UTF-8 .*save it as UTF-8$"):
        leaderboard.render(folder)
    (folder / "study.md").unlink()
    (folder / "study.md").mkdir()
    with pytest.raises(UserError, match=r"^cannot read or write .*study\.md: Is a directory; "):
        leaderboard.render(folder)
    (folder / "study.md").rmdir()
    (folder / "README.md").mkdir()
    with pytest.raises(UserError, match=r"^cannot read or write .*README\.md: "):
        leaderboard.write(folder)
    assert [path.name for path in folder.iterdir()] == ["README.md"], "nothing half-written"
    (folder / "results").write_text("no folder")
    with pytest.raises(UserError, match=r"^cannot read or write .*results: "):
        add(folder, one, None, "")


def test_adding_again_replaces(folder: Path, tmp_path: Path) -> None:
    for leaves in (0.5, 0.9):
        one = evaluations.write(tmp_path / str(leaves), leaves={"ptc_dih": leaves})
        add(folder, one, "same", "")
    (result,) = leaderboard_result.load(folder)
    assert result.data_sets[0].runs[2].mse > 0.6 * result.data_sets[0].runs[0].mse
    assert sorted(path.name for path in (folder / "results").iterdir()) == ["same.json"]


def test_what_is_missing_is_shown_as_missing(folder: Path, tmp_path: Path) -> None:
    one = evaluations.write(tmp_path / "old", models=("ptc_dih",), photos_per_dataset=3)
    rows = evaluations.read_rows(one)
    for row in rows:
        if row[1] == "ptc_dih":
            row[4] = row[5] = row[6] = ""
    evaluations.write_rows(one, rows)
    assert "NaN" not in add(folder, one, None, "").read_text(), "which is no JSON"
    text = leaderboard.render(folder)
    assert rows_of(text, "Sample")[1][5:] == ["–"] * 8
    assert "Commit: not recorded" in text
    assert "cost not recorded" in text
    assert "nan" not in text.lower().replace("provenance", "")


def test_studies_are_listed_by_their_first_paragraph(folder: Path) -> None:
    (folder / "b.md").write_text(
        "# Second `b`\n\n![a picture](b.png)\n\n```sh\nnrh demo\n```\n\nWhat was\nfound:\n\nMore.\n"
    )
    (folder / "a.md").write_text("# First\n\n**Nothing** was found.\n")
    (folder / "aa").mkdir()
    (folder / "aa" / "README.md").write_text("# In a folder\n\nIts own.\n")
    lines = leaderboard.render(folder).split("## Studies\n\n")[1].splitlines()
    first, second = "* [First](a.md): **Nothing** was found.", "* [Second `b`](b.md): What was found."
    assert lines == [first, "* [In a folder](aa/README.md): Its own.", second]
    (folder / "c.md").write_text("no heading\n")
    with pytest.raises(UserError, match=r"c\.md must begin with a heading"):
        leaderboard.render(folder)


def test_names_and_notes_mean_nothing_to_markdown(folder: Path, tmp_path: Path) -> None:
    one = evaluations.write(tmp_path / "one", {"A|B<script>": 12}, models=("ptc_dih",), strips=0)
    summary = (one / "summary.json").read_text()
    (one / "summary.json").write_text(summary.replace("ptc_dih-seed0", "x|`y`"))
    rows = evaluations.read_rows(one)
    for row in rows:
        row[2] = row[2].replace("ptc_dih-seed0", "x|`y`")
    evaluations.write_rows(one, rows)
    add(folder, one, "one", "<b>|\n# not a heading")
    text = leaderboard.render(folder)
    assert "<script>" not in text
    assert "<b>" not in text
    assert re.search(r"^\\<b\\>\\\| \\# not a heading$", text, re.M), "one line"
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if "results/one.json" in line}) == 1


def test_check_fails_with_one_line_where_anything_changed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(*words: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["leaderboard", str(folder), *words])
        return int(ended.value.code or 0)

    one = evaluations.write(tmp_path / "one")
    assert status("--add", str(one), "--name", "first", "--note", "drawn") == 0
    assert status("--check") == 0
    page = folder / "README.md"
    page.write_text(page.read_text(encoding="utf-8").replace("drawn", "edited by hand"), encoding="utf-8")
    capsys.readouterr()
    assert status("--check") == 1
    complaint = capsys.readouterr().err.splitlines()
    assert len(complaint) == 1
    assert f"run nrh leaderboard {folder}" in complaint[0]
    assert "edited" in page.read_text(encoding="utf-8"), "a check writes nothing"
    assert status() == 0
    assert status("--check") == 0
    (folder / "study.md").write_text("# A study\n\nFound.\n")
    assert status("--check") == 1
    assert status("--check", "--add", str(one)) == 1
    assert "--check does not" in capsys.readouterr().err
    for words in (("--name", "second"), ("--note", "drawn")):
        assert status(*words) == 1
        assert "give them with --add" in capsys.readouterr().err


def test_mistakes_are_one_line(folder: Path, tmp_path: Path) -> None:
    one = evaluations.write(tmp_path / "one")
    with pytest.raises(UserError, match="may hold letters"):
        add(folder, one, "../out", "")
    with pytest.raises(UserError, match="is no folder"):
        add(tmp_path / "nowhere", one, "one", "")
    with pytest.raises(UserError, match="is no folder"):
        leaderboard.render(tmp_path / "nowhere")
    path = add(folder, one, "one", "")
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 9'))
    with pytest.raises(UserError, match=r"one\.json has schema 9.*nrh leaderboard --add"):
        leaderboard.render(folder)
    path.write_text("{")
    with pytest.raises(UserError, match="not readable JSON"):
        leaderboard.render(folder)
    values = {"schema": 1, "name": "one"}
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="is not as expected"):
        leaderboard.render(folder)


def test_of_a_configuration_only_what_decides_and_differs() -> None:
    words = ["preset=tiny", "model.name=gated", "data.root=/home/me/photos", "optim.lr=0.002", "scale.workers=2"]
    assert changed(flatten(load(None, [*words, "run.name=mine", "loss.gate=0.1"]))) == {
        "preset": "tiny",
        "seed": 0,
        "model.name": "gated",
        "data.root": "photos",
        "loss.gate": 0.1,
        "optim.lr": 0.002,
    }
    assert changed({"model.name": "of another version", "optim.lr": 0.1}) == {
        "model.name": "of another version",
        "optim.lr": 0.1,
    }


def test_absolute_paths_lose_their_place() -> None:
    command = "nrh evaluate /home/me/runs/a runs/b identity --data '/d/my photos/x' --out=/tmp/e/ data.root=~/c lr=0.1"
    assert placeless_command(command) == "nrh evaluate a runs/b identity --data x --out=e data.root=c lr=0.1"
    assert placeless_command("not 'closed /home/me/x") == "not 'closed x"
    message = "weights at /home/me/.cache/hub/a.pth, and ~/b/c: a/b is 3/4"
    assert placeless(message) == "weights at a.pth, and c: a/b is 3/4"
