"""The files of a table: what each holds, and that no name can break it."""

import csv
import re
import shutil
import subprocess
from math import nan
from pathlib import Path

import blank_figures
import evaluations
import pytest
from matplotlib.figure import Figure

from nrh_dist.report import html, table_files
from nrh_dist.report.shown import Column, Row, Table

EVIL = "a_b & 50% of $x^2 \\end{table} #1 ~ <b> | [x] *n* “y” …"
TABLE = Table(
    "table2-coco-exp",
    "Means over 1,000 images",
    [Column("mse", "MSE", "ours"), Column("psnr", "PSNR, dB", "ours"), Column("paper_mse", "MSE", "paper", 0)],
    [
        Row("Identity (input)", [1234.5, 31.0, nan], "first", "identity", "identity"),
        Row("PTC-DIH", [-0.126, 33.25, 124], "first", "ptc_dih", "run-1", bold=frozenset({1})),
        Row(EVIL, [3.0, nan, nan], "second", "mine", EVIL, decimals=4),
        Row("[1em] first", [3.0, nan, nan], "second"),
        Row("*first", [3.0, nan, nan], "second"),
    ],
    ["fMSE: inside the mask only; ±1 − 2."],
)

needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")


def written(tmp_path: Path, table: Table = TABLE) -> tuple[list[dict[str, str]], str, str]:
    table_files.write(table, tmp_path, "64 × 64 px; test split of COCOExp")
    with (tmp_path / f"{table.name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, *((tmp_path / f"{table.name}.{kind}").read_text(encoding="utf-8") for kind in ("md", "tex"))


def test_csv_holds_what_the_table_holds(tmp_path: Path) -> None:
    rows, _, _ = written(tmp_path)
    assert [row["label"] for row in rows] == [row.label for row in TABLE.rows]
    assert [row["group"] for row in rows] == ["first", "first", *["second"] * 3]
    assert rows[2]["run"] == EVIL
    assert [float(rows[1][key]) for key in ("mse", "psnr", "paper_mse")] == TABLE.rows[1].values
    assert rows[0]["paper_mse"] == ""


def test_markdown_is_one_aligned_table(tmp_path: Path) -> None:
    _, text, _ = written(tmp_path)
    title, protocol, body, note = text.rstrip("\n").split("\n\n")
    assert title == "### Means over 1,000 images"
    assert protocol.startswith("64 × 64 px")
    assert note.startswith("fMSE: inside")
    lines = body.splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}
    assert len({len(line) for line in lines}) == 1
    assert re.fullmatch(r"\|:-+\|(-+:\|){3}", lines[1])
    assert lines[0].split("|")[2].strip() == "ours: MSE"
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == ["PTC-DIH", "−0.13", "**33.25**", "124"]
    assert "**" not in lines[3]
    assert [line.strip("| ") for line in lines if line.startswith("| *")] == ["*first*", "*second*"]


def test_latex_has_rules_groups_and_bold(tmp_path: Path) -> None:
    _, _, text = written(tmp_path)
    assert r"\caption{Means over 1,000 images. 64 $\times$ 64 px; test split of COCOExp.}" in text
    assert r"\begin{tabular}{lrrr}" in text
    assert r" & \multicolumn{2}{c}{ours} & \multicolumn{1}{c}{paper} \\" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}" in text
    assert r"PTC-DIH & $-$0.13 & \textbf{33.25} & 124 \\" in text
    assert r"Identity (input) & 1,234.50 & 31.00 & -- \\" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]


def unescaped(text: str) -> str:
    """The text without its comment, its fit to the page, its escaped letters and its commands' names."""
    body = text.split("\n", 1)[1].replace(table_files.FITTED, "{")
    return re.sub(r"\\\\|\\[&%$#_{}]", "", body)


def test_latex_is_balanced_whatever_the_names(tmp_path: Path) -> None:
    """Braces and environments close, every row has as many cells, nothing of a name is a command."""
    _, _, text = written(tmp_path)
    depth = 0
    for letter in unescaped(text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    plain = unescaped(text)
    assert not re.search(r"[%#_^~|<>\"]|[^\x00-\x7f]", plain)
    assert plain.count("$") % 2 == 0
    assert re.findall(r"\\(begin|end)\{(\w+)\}", text) == [
        ("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table")
    ]  # fmt: skip
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {3}
    assert not any(line.startswith(("[", "*")) for line in text.splitlines())


def compiled(texts: list[str], folder: Path) -> list[str]:
    """What pdflatex finds too wide in an article of these tables."""
    head = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (folder / "all.tex").write_text("\n\\clearpage\n".join([head, *texts, r"\end{document}"]), encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    return [line for line in done.stdout.splitlines() if line.startswith("Overfull \\hbox")]


@needs_latex
def test_latex_compiles(tmp_path: Path) -> None:
    assert compiled([written(tmp_path)[2]], tmp_path) == []


@needs_latex
def test_all_tables_of_a_report_compile_and_fit_on_the_page(tmp_path: Path) -> None:
    models = ("dih_m", "dih_nm", "ptc_att_dih", "ptc_dih", "two_stage", "gated")
    sets = {"HCOCO": 60, "HFlickr": 40, "COCOExp": 60, "Mine": 40}
    now = evaluations.write(tmp_path / "now", sets, models, strips=0, further=True, lpips=None)
    before = evaluations.write(tmp_path / "before", sets, ("ptc_dih",), leaves={"ptc_dih": 1.4}, strips=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", blank_figures.save)
        html.write([now], tmp_path / "report", against=before)
    files = sorted((tmp_path / "report" / "tables").glob("*.tex"))
    assert len(files) > 20
    assert compiled([file.read_text(encoding="utf-8") for file in files], tmp_path) == []


def test_a_table_without_groups_rows_or_notes(tmp_path: Path) -> None:
    rows, markdown, latex = written(tmp_path, Table("t", "Nothing", [Column("a", "A")], []))
    assert rows == []
    assert markdown.count("|") == 6
    assert "cmidrule" not in latex
    assert "footnotesize" not in latex


def test_the_page_shows_the_head_and_the_files_hold_all(tmp_path: Path) -> None:
    long = Table("t", "Long", [Column("a", "A")], [Row(str(i), [i]) for i in range(30)], most=20)
    assert len(long.head().rows) == 20
    assert "The first 20 of 30 rows" in long.head().notes[-1]
    assert long.head().head() == long.head()
    assert len(written(tmp_path, long)[0]) == 30
