"""The page in a real browser: nothing leaves the machine, the slider moves, tables sort, phone, paper and dark work.

Needs playwright and Debian's chromium (or google-chrome); skipped where no browser is installed.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import blank_figures
import evaluations
import pytest
from browsers import DESK, PHONE
from matplotlib.figure import Figure

from nrh_dist.report import html

PAPER = {"width": 680, "height": 960}  # A4 without its margins, at 96 dots per inch


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it: two collections, strips by group, a comparison, a run without any value."""
    folder = tmp_path_factory.mktemp("page")
    models = ("dih_m", "ptc_dih", "two_stage")
    now = evaluations.write(folder / "now", {"HCOCO": 24, "COCOExp": 24}, models, strips=4, further=True, lpips=None)
    before = evaluations.write(folder / "before", {"HCOCO": 24, "COCOExp": 24}, ("ptc_dih",), leaves={"ptc_dih": 1.4})
    columns = (*evaluations.COLUMNS, *evaluations.FURTHER)
    rows = evaluations.read_rows(now)
    for row in rows:
        if row[1] == "ptc_dih":
            row[columns.index("lpips")] = ""
    evaluations.write_rows(now, rows, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", blank_figures.save)
        return html.write([now], folder / "report", against=before)


@pytest.fixture
def open_page(browser: Any, index: Path) -> Iterator[Any]:
    """Opens the page with the options of a browser context; whatever it complains of or asks for fails the test."""
    contexts, complaints, asked = [], [], []

    def opened(**options: Any) -> Any:
        context = browser.new_context(**{"viewport": DESK, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(index.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    folder = index.parent.as_uri()
    assert [url for url in asked if not url.startswith(f"{folder}/")] == []


def test_nothing_is_missing_and_nothing_leaves_the_machine(open_page: Any, index: Path) -> None:
    page = open_page()
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.src)") == []
    links = page.evaluate("[...document.querySelectorAll('a')].map(link => link.getAttribute('href'))")
    files = [link for link in links if not link.startswith("#")]
    assert len(files) > 20
    assert "tables/differences-iharmony4.csv" in files, "named in a sentence"
    assert [file for file in files if not (index.parent / file).is_file()] == []
    targets = [link for link in links if link.startswith("#")]
    assert [link for link in targets if not page.locator(link).count()] == []


def test_what_screen_readers_need(open_page: Any) -> None:
    page = open_page()
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(one => +one.tagName[1])")
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for rule in (
        "html:not([lang])",
        "img:not([alt]), img[alt='']",
        "table:not(:has(caption))",
        "thead th:not([scope]), tbody th:not([scope])",
        "a:not([href])",
        "section:not([aria-labelledby]), [role=region]:not([aria-label]), nav:not([aria-label])",
    ):
        assert page.locator(rule).count() == 0, rule
    for landmark in ("header", "main", "footer", "nav[aria-label=Sections]"):
        assert page.locator(landmark).count() == 1, landmark
    assert page.evaluate("[...document.querySelectorAll('button, summary, a')].filter(o => !o.innerText.trim())"
                         ".map(o => o.outerHTML).filter(o => !o.includes('<img'))") == []  # fmt: skip
    unlabelled = "[...document.querySelectorAll('input')].filter(one => !one.labels.length).length"
    assert page.evaluate(unlabelled) == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "To the content"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def shown(page: Any) -> dict[str, Any]:
    """What the first slider shows: the place of its border, what it says, and the picture on the right."""
    return page.evaluate("""() => {
      const compare = document.querySelector(".compare"), pair = compare.querySelector(".pair");
      const right = compare.querySelector(".right:not([hidden])"), box = pair.getBoundingClientRect();
      const x = box.left + 0.3 * box.width, y = box.top + 0.7 * box.height;
      return {
        says: compare.querySelector("input[type=range]").getAttribute("aria-valuetext"),
        label: right.innerText, clip: getComputedStyle(right).clipPath, rights:
        compare.querySelectorAll(".right:not([hidden])").length, box: box.toJSON(),
        under: document.elementFromPoint(x, y)?.closest(".side")?.innerText,
      };
    }""")


def test_slider_moves_by_keys_and_by_mouse(open_page: Any) -> None:
    page = open_page()
    border = page.locator(".compare input[type=range]").first
    border.scroll_into_view_if_needed()
    before = shown(page)
    assert before["says"] == "50 % input, 50 % Two-stage"
    assert before["under"] == "Input", "three tenths from the left"
    border.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert shown(page)["says"] == "53 % input, 47 % Two-stage"
    page.keyboard.press("Home")
    at_start = shown(page)
    assert at_start["says"] == "0 % input, 100 % Two-stage"
    assert at_start["under"] == "Two-stage"
    assert at_start["clip"] != before["clip"]
    box = before["box"]
    page.mouse.move(box["left"] + 0.1 * box["width"], box["top"] + 20)
    page.mouse.down()
    page.mouse.move(box["left"] + 0.9 * box["width"], box["top"] + 30, steps=4)
    page.mouse.up()
    page.mouse.move(box["left"] + 0.2 * box["width"], box["top"] + 30)
    dragged = shown(page)
    assert dragged["says"] == "90 % input, 10 % Two-stage"
    assert dragged["under"] == "Input"


def test_the_right_side_is_chosen_by_keys_and_by_mouse(open_page: Any) -> None:
    page = open_page()
    compare = page.locator(".compare").first
    assert compare.locator("legend").inner_text().startswith("Right side, MSE (input: ")
    compare.get_by_label("Real photo").click()
    found = shown(page)
    assert (found["label"], found["rights"]) == ("Real photo", 1)
    assert found["says"] == "50 % input, 50 % Real photo"
    page.keyboard.press("ArrowDown")  # around to the first
    assert shown(page)["label"] == "DIH-M, dih_m-seed0"
    pictures = (
        "[...document.querySelectorAll('.compare')].map(one => one.querySelector('.right:not([hidden])').innerText)"
    )
    assert set(page.evaluate(pictures)[1:]) == {"Two-stage"}, "the other sliders keep theirs"


def test_without_scripts_both_pictures_stand_side_by_side(open_page: Any) -> None:
    page = open_page(java_script_enabled=False)
    pair = page.locator(".pair").first
    left, right = (pair.locator(f".{side}:visible").bounding_box() for side in ("left", "right"))
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]
    assert page.locator(".controls:visible").count() == 0
    assert page.locator("th button").count() == 0


def column(page: Any, table: str, position: int) -> list[list[float | None]]:
    """The numbers of a column as they are shown, by group of rows; None where it is not available."""
    texts = page.evaluate(
        """([table, position]) => [...document.querySelector(table).tBodies].map(body =>
          [...body.rows].filter(row => row.cells.length > 1).map(row => row.cells[position].innerText.trim()))""",
        [table, position],
    )
    return [[None if t == "–" else float(t.replace(",", "").replace("−", "-")) for t in body] for body in texts]


def test_tables_sort_up_and_down_by_value_with_what_is_missing_last(open_page: Any) -> None:
    page = open_page()
    page.evaluate("document.querySelector('table').id = 'first'")
    titles = page.locator("#first thead tr:last-child th").all_inner_texts()
    lpips = titles.index("LPIPS")
    asked = column(page, "#first", lpips)
    assert None in asked[0], "a run without LPIPS"
    heading = page.locator("#first thead tr:last-child th").nth(lpips)
    button = heading.locator("button")
    button.focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    known = sorted(value for value in asked[0] if value is not None)
    missing = [None] * asked[0].count(None)
    assert column(page, "#first", lpips)[0] == known + missing
    button.click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert column(page, "#first", lpips)[0] == known[::-1] + missing
    assert page.locator("#first tr.identity").count() == 1
    button.click()
    assert heading.get_attribute("aria-sort") is None
    assert column(page, "#first", lpips) == asked


def test_rows_stay_in_their_group(open_page: Any) -> None:
    page = open_page()
    assert page.locator("table.sortable").count() == page.locator("table").count()
    number = page.evaluate("[...document.querySelectorAll('table')].findIndex(one => one.tBodies.length > 2)")
    page.evaluate(f"document.querySelectorAll('table')[{number}].id = 'grouped'")
    asked = column(page, "#grouped", 2)
    headings = page.locator("#grouped .rowgroup").all_inner_texts()
    page.locator("#grouped thead tr:last-child th").nth(2).locator("button").click()
    after = column(page, "#grouped", 2)
    assert after != asked
    assert [sorted(body, key=str) for body in after] == [sorted(body, key=str) for body in asked]
    assert page.locator("#grouped .rowgroup").all_inner_texts() == headings
    firsts = "[...document.querySelector('#grouped').tBodies].every(body => body.rows[0].className === 'rowgroup')"
    assert page.evaluate(firsts)


def test_a_phone_scrolls_tables_but_not_the_page(open_page: Any) -> None:
    page = open_page(viewport=PHONE, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.evaluate("Math.min(...[...document.querySelectorAll('th[scope=row]')].map(o => o.offsetWidth))") > 60
    border = page.locator(".compare input[type=range]").first
    assert border.bounding_box()["width"] > 300


def test_dark_mode_changes_the_background(open_page: Any) -> None:
    def brightness(scheme: str) -> tuple[int, int]:
        style = "getComputedStyle(document.body)"
        page = open_page(color_scheme=scheme)
        numbers = page.evaluate(f"[{style}.backgroundColor, {style}.color].map(c => +c.match(/\\d+/)[0])")
        return numbers[0], numbers[1]

    (light_paper, light_ink), (dark_paper, dark_ink) = brightness("light"), brightness("dark")
    assert light_paper > 240 > 60 > light_ink
    assert dark_paper < 60 < 200 < dark_ink


def test_paper_shows_both_pictures_all_details_and_whole_tables(open_page: Any) -> None:
    page = open_page(viewport=PAPER, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    pair = page.locator(".pair").first
    left, right = (pair.locator(f".{side}:visible").bounding_box() for side in ("left", "right"))
    assert left["x"] + left["width"] <= right["x"]
    assert page.evaluate("getComputedStyle(document.querySelector('.right:not([hidden])')).clipPath") == "none"
    assert page.locator(".controls:visible, nav:visible").count() == 0
    assert page.locator("details pre").first.bounding_box()["height"] > 50
    tag = page.evaluate("getComputedStyle(document.querySelector('.tag')).printColorAdjust")
    assert tag == "exact", "white words on a dark photo need their ground, which browsers leave out on paper"
    wide = "[...document.querySelectorAll('table')].filter(one => one.getBoundingClientRect().right > innerWidth)"
    assert page.evaluate(f"{wide}.map(one => one.caption.innerText)") == []
