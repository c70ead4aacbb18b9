"""The page as a whole: self-contained, honest about what is missing, and never half-written."""

from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import evaluations
import pytest
from PIL import Image

from nrh_dist.errors import UserError
from nrh_dist.report import figures, html, strips
from nrh_dist.report.collect import read
from nrh_dist.report.parts import number
from nrh_dist.report.sections import sections


@pytest.fixture(autouse=True)
def small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the pictures of these tests."""
    monkeypatch.setattr(figures, "DOTS_PER_INCH", 40)
    monkeypatch.setattr(strips, "DOTS_PER_INCH", 40)


class Page(HTMLParser):
    """The parts of a page that the tests look at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in tags]


def test_page_is_complete_and_offline(tmp_path: Path) -> None:
    one = evaluations.write(tmp_path / "one", {"HCOCO": 30, "HFlickr": 20, "COCOExp": 20}, strips=3)
    index = html.write([one], tmp_path / "report")
    page = Page(index)
    source = index.read_text(encoding="utf-8")
    assert index == tmp_path / "report" / "index.html"
    assert not page.all("script", "link", "iframe")
    assert "://" not in source
    assert "url(" not in source
    assert "@import" not in source
    linked = [attributes["src"] for attributes in page.all("img")]
    written = {f"figures/{path.name}" for path in (index.parent / "figures").iterdir()}
    assert set(linked) == written
    assert len([name for name in linked if "strip-" in name]) == 3
    assert all(attributes["alt"] for attributes in page.all("img"))
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert all(a["href"][1:] in ids for a in page.all("a") if a["href"].startswith("#"))
    assert {path.name for path in (index.parent / "tables").iterdir()} == {
        f"{table}-{slug}.csv" for table in ("table2", "table3", "subsets") for slug in ("iharmony4", "coco-exp")
    }


def test_page_says_what_it_shows(tmp_path: Path) -> None:
    text = Page(html.write([evaluations.write(tmp_path / "e", {"HCOCO": 40})], tmp_path / "report")).text
    for words in ("64 × 64 px; test split of HCOCO", "epoch-0004-step-000420", "PIL BICUBIC", "Identity (input)"):
        assert words in text
    assert "LPIPS was not measured (alexnet-owt-7be5be79.pth is missing" in text
    assert "31.39" in text
    assert "256 × 256 px; iHarmony4 test split, 7,404 composites" in text


def test_several_sizes_are_pointed_out(tmp_path: Path) -> None:
    one, two = evaluations.write(tmp_path / "one", size=64), evaluations.write(tmp_path / "two", size=128)
    text = Page(html.write([one, two], tmp_path / "report")).text
    assert "different sizes (64, 128 px)" in text
    assert "Sample at 64 px" in text
    assert "Sample, two at 128 px" in text


def test_missing_parts_are_visible(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", strips=0)
    rows = evaluations.read_rows(folder)
    last = [row for row in rows if row[1] == "ptc_dih"][:3]
    for row in last:
        row[4] = row[5] = row[6] = ""
    evaluations.write_rows(folder, rows)
    text = Page(html.write([folder], tmp_path / "report")).text
    assert "holds no strips" in text
    assert "PTC-DIH: 3 images without a value" in text
    assert "fMSE leaves out 3 images" in text
    assert "nan" not in text.lower()


def test_identity_alone_makes_a_page(tmp_path: Path) -> None:
    text = Page(html.write([evaluations.write(tmp_path / "e", models=(), strips=0)], tmp_path / "report")).text
    assert "no model was evaluated" in text
    assert "No checkpoint" in text


def test_names_are_escaped(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e")
    evil = '<script>alert("x")</script>'
    for name in ("per_image.csv", "summary.json"):
        path = folder / name
        quote = evil.replace('"', '\\"' if name.endswith("json") else "'")
        path.write_text(path.read_text().replace("ptc_dih-seed0", quote))
    assert not Page(html.write([folder], tmp_path / "report")).all("script")


@pytest.mark.parametrize(
    ("leaves", "says"),
    [
        (0.5, "PTC-DIH beats doing nothing"),
        (1.6, "PTC-DIH raises the error over doing nothing"),
        (0.91, "PTC-DIH cannot be told apart from doing nothing"),
    ],
)
def test_headline_follows_the_interval(tmp_path: Path, leaves: float, says: str) -> None:
    folder = evaluations.write(tmp_path / "e", leaves={"ptc_dih": leaves}, strips=0)
    sentence, numbers = html.headline(sections([read(folder)])[0])
    assert sentence.startswith(says)
    assert "% of the images made worse" in sentence
    assert "95 % interval" in numbers


def test_headline_says_when_photos_are_too_few(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", photos_per_dataset=3, leaves={"ptc_dih": 0.2})
    sentence, numbers = html.headline(sections([read(folder)])[0])
    assert "cannot be told apart" in sentence
    assert "3 photos, too few" in numbers


def test_headline_model_does_not_see_the_mask(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", leaves={"dih_m": 0.1})
    assert html.headline(sections([read(folder)])[0])[0].startswith("PTC-DIH")
    alone = evaluations.write(tmp_path / "alone", models=("dih_m",))
    assert "given the mask" in html.headline(sections([read(alone)])[0])[1]


def test_against_adds_its_section(tmp_path: Path) -> None:
    now, before = evaluations.write(tmp_path / "now", leaves={"ptc_dih": 0.5}), evaluations.write(tmp_path / "before")
    index = html.write([now], tmp_path / "report", against=before)
    assert "What changed against before" in Page(index).text
    assert len((index.parent / "tables" / "against-images.csv").read_text().splitlines()) == 81
    same = Page(html.write([now], tmp_path / "same", against=now)).text
    assert "No image changed by more than 1." in same


def test_an_earlier_report_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "report"
    html.write([evaluations.write(tmp_path / "one", strips=2)], out)
    html.write([evaluations.write(tmp_path / "two", {"Other": 20}, strips=1)], out)
    assert sorted(path.name for path in (out / "figures").glob("strip*")) == ["strip-other-01.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "report", "two"]


def test_anything_else_is_refused(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("<html>")
    reported = html.write([folder], tmp_path / "report").parent
    (reported / "notes.txt").write_text("mine")
    for out, says in (
        ("file", "is a file"),
        ("mine", "not a report"),
        ("report", "not a report"),
        (".", "which a report would replace"),
    ):
        with pytest.raises(UserError, match=says):
            html.write([folder], tmp_path / out)
    assert (reported / "notes.txt").exists()


def test_a_failure_leaves_the_earlier_report_whole(tmp_path: Path) -> None:
    folder, out = evaluations.write(tmp_path / "e"), tmp_path / "report"
    before = html.write([folder], out).read_bytes()
    Image.new("L", (3, 3)).save(folder / "strips" / "0000-mask.png")
    with pytest.raises(UserError, match="0000-mask"):
        html.write([folder], out)
    assert (out / "index.html").read_bytes() == before
    with pytest.raises(UserError):
        html.write([folder], tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "report"]


def test_numbers_are_written_one_way() -> None:
    assert [number(value, 2) for value in (1234.5, -0.126, float("nan"))] == ["1,234.50", "−0.13", "–"]
