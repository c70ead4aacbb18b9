"""The page of a sweep, in its own folder and in the report."""

import re
from itertools import pairwise
from pathlib import Path

import evaluations
import pytest
import sweeps
from test_html import Page

from nrh_dist.errors import UserError
from nrh_dist.report import figures, html, strips, sweep, sweep_figures


@pytest.fixture(autouse=True)
def small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the pictures of these tests."""
    monkeypatch.setattr(figures, "DOTS_PER_INCH", 40)
    monkeypatch.setattr(strips, "DOTS_PER_INCH", 40)
    monkeypatch.setattr(sweep_figures, "SHUFFLES", 5)


def written(folder: Path) -> Page:
    return Page(sweep.write(folder, lambda line: None))


def test_the_page_is_complete_and_offline(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "demo", failed=(4,), metrics=("val/mse", "cost/parameters"))
    said: list[str] = []
    index = sweep.write(folder, said.append)
    page, source = Page(index), index.read_text(encoding="utf-8")
    assert said == [f"open {folder / 'index.html'}"]
    assert not page.all("link", "iframe")
    assert all("src" not in script for script in page.all("script"))
    assert set(re.findall(r"\w*://", source)) == {"sqlite://"}
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp", source)
    shown = {attributes["src"] for attributes in page.all("img")}
    assert shown == {f"figures/{path.name}" for path in (folder / "figures").iterdir()}
    assert shown == {
        f"figures/{name}.png" for name in ("best-so-far", "learning-curves", "importance", "pareto", "parallel")
    }
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert all((folder / a["href"]).is_file() for a in page.all("a") if not a["href"].startswith("#"))
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert not list(folder.glob(".*"))


def test_the_page_says_what_it_shows(tmp_path: Path) -> None:
    text = written(sweeps.write(tmp_path / "demo", failed=(4,))).text
    assert "Best of demo: val/mse 107.3 with model.fusion_width 512" in text
    assert "12 trials: 7 finished, 4 stopped early, 1 failed. 69 of at most 108 epochs were spent." in text
    assert "asha: max_epochs 9, grace_epochs 1, reduction_factor 3" in text
    assert "loguniform: 0.0001 to 0.003" in text
    assert "the loss is not finite after 3 bad steps" in text
    assert "data.size 64" in text
    assert "What failed" in text
    assert "nrh tune FILE key=value ... --resume" in text
    assert f"nrh best {tmp_path.name}/demo" in text
    assert str(tmp_path) not in text, "a page is shown to others"


def test_the_table_sorts_by_numbers_and_keeps_what_is_empty_last(tmp_path: Path) -> None:
    page = written(sweeps.write(tmp_path / "demo", begun=9))
    cells = [attributes for attributes in page.all("td") if "data-order" in attributes]
    columns = len(sweeps.SPACE) + 3  # metric, epochs, status; the trial is a heading
    assert len(cells) == 12 * columns
    values = [cells[i * columns + 3]["data-order"] for i in range(12)]
    assert values[9:] == [None] * 3 or values[9:] == [""] * 3
    numbers = [float(value) for value in values[:9] if value]
    assert numbers == sorted(numbers)


def test_an_unfinished_sweep_has_a_page(tmp_path: Path) -> None:
    text = written(sweeps.write(tmp_path / "s", begun=5, running=2)).text
    assert "Best so far of s" in text
    assert "2 running, 7 waiting" in text
    assert "Go on, with the file and words that it began with" in text
    assert "Importance of the searched keys. Not computed: 3 trials came to an end" in text


def test_a_single_trial_has_a_page(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "s", 1)
    text = written(folder).text
    assert "1 trial: 1 finished" in text
    assert "flattered" not in text
    assert (folder / "figures" / "parallel.png").is_file()


def test_a_sweep_that_did_not_begin_has_a_page(tmp_path: Path) -> None:
    text = written(sweeps.write(tmp_path / "s", begun=0)).text
    assert "No trial of s has a value yet" in text


def test_a_sweep_whose_trials_all_failed_has_a_page(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "s", 3, begun=0)
    for index in range(3):
        drawn = {"model.fusion_width": 128, "model.freeze": "none", "optim.lr": 0.001}
        sweeps.write_trial(folder, index, drawn, [], reason="no memory")
    page = written(folder)
    assert "All 3 trials of s failed" in page.text
    assert "there is nothing to draw" in page.text
    assert page.text.count("no memory") == 3
    assert not page.all("img")
    assert (folder / "study.db").is_file()


def test_a_page_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweeps.write(tmp_path / "s", 3)
    written(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(sweep.sweep_study, "export", _fails)
    with pytest.raises(OSError, match="disk full"):
        written(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    monkeypatch.undo()
    (folder / "trials" / "t0000" / "stopped.json").unlink(missing_ok=True)
    written(folder)
    assert {path.name for path in folder.iterdir()} == {
        "sweep.json", "trials", "trials.csv", "figures", "study.db", "index.html",
    }  # fmt: skip


def _fails(*_: object) -> None:
    raise OSError("disk full")


def test_a_damaged_sweep_gets_no_page(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "s", 2)
    (folder / "trials" / "t0001" / "assignment.json").write_text("{")
    with pytest.raises(UserError, match="not readable JSON"):
        sweep.write(folder, print)
    assert not (folder / "index.html").exists()
    assert not list(folder.glob(".page*"))


def test_names_are_escaped(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "s", 2, space={"model.freeze": {"choice": ["<script>", "<b>"], "when": {}}})
    assert len(written(folder).all("script")) == 1


def test_a_report_holds_evaluations_and_sweeps(tmp_path: Path) -> None:
    one = evaluations.write(tmp_path / "evaluation", strips=0)
    first, second = sweeps.write(tmp_path / "demo", 4), sweeps.write(tmp_path / "other" / "demo", 4, seed=1)
    index = html.write([first, one, second], tmp_path / "report")
    page = Page(index)
    assert {path.name for path in (index.parent / "tables").glob("sweep*")} == {"sweep-demo.csv", "sweep-demo-2.csv"}
    assert (index.parent / "figures" / "parallel-demo-2.png").is_file()
    assert {attributes["src"] for attributes in page.all("img")} == {
        f"figures/{path.name}" for path in (index.parent / "figures").iterdir()
    }
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert all(a["href"][1:] in ids for a in page.all("a") if a["href"].startswith("#"))
    assert all((index.parent / a["href"]).is_file() for a in page.all("a") if not a["href"].startswith("#"))
    assert "How this was made" in page.text


def test_a_report_of_a_sweep_alone(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "demo", 4)
    page = Page(html.write([folder], tmp_path / "report"))
    assert "Best of demo" in page.text
    assert "How this was made" not in page.text
    with pytest.raises(UserError, match="not of detectors or sweeps"):
        html.write([folder], tmp_path / "report", against=evaluations.write(tmp_path / "e"))
    with pytest.raises(UserError, match="which a report would replace"):
        html.write([folder], folder)
