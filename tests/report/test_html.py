"""The page as a whole: self-contained, honest about what is missing, and never half-written."""

import errno
import os
import re
import shlex
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import blank_figures
import evaluations
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nrh_dist.errors import UserError
from nrh_dist.report import failure_table, harmoniser_chapter, html, protocol
from nrh_dist.report.collect import read
from nrh_dist.report.parts import number
from nrh_dist.report.sections import sections
from nrh_dist.report.shown import Column, Row, Table


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the figures of these tests."""
    monkeypatch.setattr(Figure, "savefig", blank_figures.save)


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
    one = evaluations.write(tmp_path / "one", {"HCOCO": 30, "HFlickr": 20, "COCOExp": 20}, strips=3, further=True)
    index = html.write([one], tmp_path / "report")
    page = Page(index)
    source = index.read_text(encoding="utf-8")
    assert index == tmp_path / "report" / "index.html"
    assert not page.all("link", "iframe")
    assert all("src" not in script for script in page.all("script"))
    assert "://" not in source
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp", source)
    linked = [attributes["src"] for attributes in page.all("img")]
    written = {f"figures/{path.name}" for path in (index.parent / "figures").iterdir()}
    assert set(linked) == written
    assert len({name for name in linked if re.search(r"strip-[\w-]+-\d\d\.png", str(name))}) == 3
    assert all(attributes["alt"] for attributes in page.all("img"))
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(a["href"][1:] in ids for a in page.all("a") if a["href"].startswith("#"))
    files = {a["href"] for a in page.all("a") if not a["href"].startswith("#")}
    assert all((index.parent / file).is_file() for file in files)
    tables = {f"tables/{path.name}" for path in (index.parent / "tables").iterdir()}
    for slug in ("iharmony4", "coco-exp"):
        assert {
            f"tables/{name}-{slug}.{kind}" for name in ("table2", "table3") for kind in ("csv", "md", "tex")
        } <= files
    shown = [table["aria-label"] for table in page.all("div") if table.get("role") == "region"]
    assert len(shown) == len(page.all("table"))
    assert len({file.rsplit(".")[0] for file in files & tables}) >= len(shown) - 1, "all but that of checkpoints"


def test_every_table_of_ours_names_its_protocol(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "one", {"HCOCO": 30, "HFlickr": 20}, further=True)
    source = html.write([folder], tmp_path / "report").read_text(encoding="utf-8")
    captions = re.findall(r"<caption>(.*?)</caption>", source)
    lines = [re.search('<span class="protocol">(.*?)</span>', caption) for caption in captions]
    without = [caption for caption, line in zip(captions, lines, strict=True) if not line]
    assert [re.sub("<.*?>", "", caption) for caption in without] == [
        "Methods that are given the mask, on iHarmony4 at 256 px, as published",
        "Checkpoints",
    ]
    found = [line[1] for line in lines if line]
    assert all(line.startswith("64 × 64 px; test split of HCOCO + HFlickr, 50 images") for line in found)


def test_protocol_defines_what_the_table_shows(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", {"Other": 1})
    words = {
        "mse": "0..255 scale; and more",
        "mse_outside": "outside the mask",
        "psnr": "peak 255",
        "size_bin": "tenths",
    }
    evaluations.edit_summary(folder, protocol=words)
    section = sections([read(folder)])[0]
    place = "64 × 64 px; test split of Other, 1 image; means of per-image values"

    def line(*keys: str, caption: str = "Title") -> str:
        return protocol.line(section, Table("t", caption, [Column(key, key) for key in keys], []))

    assert line("mse_low", "count") == f"{place}. MSE: 0..255 scale."
    assert line("mse_outside_mean") == f"{place}. MSE outside the mask: outside the mask."
    assert line("0-10%", caption="PSNR by size") == f"{place}. PSNR: peak 255. size bin: tenths."
    assert line("count") == f"{place}."
    assert line("my-run_mse", "count") == f"{place}. MSE: 0..255 scale."
    assert line("my-run_mse_outside") == f"{place}. MSE outside the mask: outside the mask."
    asked = Table("t", "Title", [Column("my-run_percent", "x")], [], needs=("mse", "not measured"))
    assert protocol.line(section, asked) == f"{place}. MSE: 0..255 scale."
    assert "mse" in failure_table.table(section, section.results[1:]).needs


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
    last = [row for row in rows if row[1] == "ptc_dih"][:5]
    for row in last[:3]:
        row[4] = row[5] = row[6] = ""
    for row in last[3:]:
        row[6] = ""  # an empty mask
    evaluations.write_rows(folder, rows)
    text = Page(html.write([folder], tmp_path / "report")).text
    assert "holds no strips" in text
    assert "PTC-DIH: 3 images without a value" in text
    assert "fMSE leaves out 2 images" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_identity_alone_makes_a_page(tmp_path: Path) -> None:
    text = Page(html.write([evaluations.write(tmp_path / "e", models=(), strips=0)], tmp_path / "report")).text
    assert "no model was evaluated" in text
    assert "No checkpoint" in text


def test_models_without_a_finite_result_are_no_missing_models(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", models=("ptc_dih",), strips=0)
    rows = evaluations.read_rows(folder)
    for row in rows:
        if row[1] == "ptc_dih":
            row[4] = row[5] = row[6] = ""
    evaluations.write_rows(folder, rows)
    text = Page(html.write([folder], tmp_path / "report")).text
    assert "No model gave a finite result on Sample" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_how_it_was_made_is_told(tmp_path: Path) -> None:
    folder, out = evaluations.write(tmp_path / "it's", further=True), tmp_path / "report"
    text = Page(html.write([folder], out, against=folder)).text
    made = evaluations.PROVENANCE
    for words in (made["command"], made["commit"], "torch 2.14.0", "0.000 GPU hours, 0.067 CPU hours", "2 actors"):
        assert words in text
    assert "120 s for 40 images, 12.5 images/s" in text
    assert "1.500 hours, 2 workers, 3.000 CPU hours, CPU" in text
    assert "cost not recorded: dih_m-seed0" in text
    command = text[text.index("nrh report ") :].splitlines()[0]
    assert shlex.split(command) == ["nrh", "report", str(folder), "--out", str(out), "--against", str(folder)]
    older = Page(html.write([evaluations.write(tmp_path / "older")], tmp_path / "older-report")).text
    assert "not recorded, as in evaluations of earlier versions" in older


def test_names_are_escaped(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e")
    evil = '<script>alert("x")</script>'
    for name in ("per_image.csv", "summary.json"):
        path = folder / name
        quote = evil.replace('"', '\\"' if name.endswith("json") else "'")
        path.write_text(path.read_text().replace("ptc_dih-seed0", quote))
    index = html.write([folder], tmp_path / "report")
    assert len(Page(index).all("script")) == 3, "those of the page"
    assert "alert(" in Page(index).text


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
    sentence, numbers = harmoniser_chapter.headline(sections([read(folder)])[0])
    assert sentence.startswith(says)
    assert "% of the images made worse" in sentence
    assert "95 % interval" in numbers


def test_headline_says_when_photos_are_too_few(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", photos_per_dataset=3, leaves={"ptc_dih": 0.2})
    sentence, numbers = harmoniser_chapter.headline(sections([read(folder)])[0])
    assert "cannot be told apart" in sentence
    assert "3 photos, too few" in numbers


def test_headline_model_does_not_see_the_mask(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", leaves={"dih_m": 0.1})
    assert harmoniser_chapter.headline(sections([read(folder)])[0])[0].startswith("PTC-DIH")
    alone = evaluations.write(tmp_path / "alone", models=("dih_m",))
    assert "given the mask" in harmoniser_chapter.headline(sections([read(alone)])[0])[1]


def test_headline_says_that_it_was_chosen(tmp_path: Path) -> None:
    def numbers(*models: str) -> str:
        folder = evaluations.write(tmp_path / "-".join(models), models=models, strips=0)
        return harmoniser_chapter.headline(sections([read(folder)])[0])[1]

    assert "lowest MSE of 2 runs without the mask, so slightly flattered" in numbers("dih_m", "ptc_dih", "gated")
    assert "flattered" not in numbers("dih_m", "ptc_dih"), "one was there to choose"
    assert "flattered" not in numbers("dih_m")


@pytest.mark.parametrize(
    ("added", "says"),
    [
        (0.0, "PTC-DIH leaves untouched images of Sample as they are"),
        (3.0, "PTC-DIH changes untouched images of Sample, with 100\N{NO-BREAK SPACE}% of the images made worse"),
    ],
)
def test_untouched_photos_are_no_composites(added: float, says: str, tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", models=("ptc_dih",), strips=0)
    rows = evaluations.read_rows(folder)
    for row in rows:
        row[9], row[4] = "0.000000", "0.000000" if row[1] == "identity" else f"{added:.6f}"
    evaluations.write_rows(folder, rows)
    evaluations.edit_summary(folder, models=[])
    text = Page(html.write([folder], tmp_path / "report")).text
    assert says in text
    assert "Sample test, 40 untouched photos at 64 px" in text and "40 untouched photos; means" in text
    assert "40 composites" not in text


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
    assert {path.name.split(".")[0][:14] for path in (out / "figures").glob("strip*")} == {"strip-other-01"}
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


def test_what_the_disk_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = evaluations.write(tmp_path / "e", strips=0), tmp_path / "report"
    before = html.write([folder], out).read_bytes()
    with pytest.raises(UserError, match=r"^cannot read or write .*index\.html.*: Not a directory; "):
        html.write([folder], out / "index.html" / "below")
    rename = Path.rename

    def fails_once(path: Path, target: Path) -> Path:
        if ".partial-" in path.name:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(UserError, match=r"^cannot read or write .*: Permission denied; "):
        html.write([folder], out)
    monkeypatch.undo()
    assert (out / "index.html").read_bytes() == before
    monkeypatch.setattr(os.path, "ismount", lambda path: path == out)
    with pytest.raises(UserError, match="is a mount point"):
        html.write([folder], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "report"]


def test_counts_stay_whole_in_rows_of_many_decimals() -> None:
    columns = [Column("images", "Images", decimals=0), Column("lpips", "LPIPS", decimals=2)]
    table = Table("t", "Title", columns, [Row("a", [5, 0.5], decimals=4), Row("b", [5, 0.5])])
    assert [[table.decimals(row, i) for i in range(2)] for row in table.rows] == [[0, 4], [0, 2]]


def test_numbers_are_written_one_way() -> None:
    assert [number(value, 2) for value in (1234.5, -0.126, float("nan"))] == ["1,234.50", "−0.13", "–"]
