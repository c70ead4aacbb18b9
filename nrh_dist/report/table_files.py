"""A table as CSV for programs, Markdown for people and LaTeX for papers: one ``Table``, three files."""

import csv
from itertools import groupby
from math import isnan
from pathlib import Path

from nrh_dist.report.parts import number
from nrh_dist.report.shown import Row, Table

HEAD = "% Needs \\usepackage{booktabs,graphicx}; XeLaTeX or LuaLaTeX for names in other than Latin letters."
FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # as wide as it is, or as the text
LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "−": "$-$", "–": "--", "×": r"$\times$", "±": r"$\pm$", "≥": r"$\geq$",
    "…": r"\dots{}", "’": "'", "“": "``", "”": "''", '"': "''", "\N{NO-BREAK SPACE}": "~", "\n": " ",
    "[": "{[}", "]": "{]}", "*": "{*}",  # LaTeX takes these for arguments at the start of a line
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip
MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*_[]<>|#$"} | {"\n": " "}


def write(table: Table, folder: Path, protocol: str = "") -> None:
    """All rows into NAME.csv, NAME.md and NAME.tex in ``folder``; ``protocol`` says what the numbers are."""
    write_csv(table, folder / f"{table.name}.csv")
    write_markdown(table, folder / f"{table.name}.md", protocol)
    write_latex(table, folder / f"{table.name}.tex", protocol)


def write_csv(table: Table, path: Path) -> None:
    """One line a row, every value with six decimals, an empty cell where it is not available."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "label", "model", "run", *(column.key for column in table.columns)])
        for row in table.rows:
            cells = ["" if isnan(value) else f"{value:.6f}" for value in row.values]
            writer.writerow([row.group, row.label, row.model, row.run, *cells])


def write_markdown(table: Table, path: Path, protocol: str = "") -> None:
    """``markdown`` as a file."""
    path.write_text(markdown(table, protocol), encoding="utf-8")


def markdown(table: Table, protocol: str = "") -> str:
    """Title, protocol, a table of pipes with aligned numbers, notes. A group of columns stands before each title."""
    heads = [f"{column.group}: {column.title}" if column.group else column.title for column in table.columns]
    lines = [["", *(_escaped(head, MARKDOWN) for head in heads)]]
    for group, rows in groupby(table.rows, lambda row: row.group):
        if group:
            lines.append([f"*{_escaped(group, MARKDOWN)}*", *[""] * len(heads)])
        for row in rows:
            cells = [f"**{cell}**" if i in row.bold else cell for i, cell in enumerate(_cells(table, row))]
            lines.append([_escaped(row.label, MARKDOWN), *cells])
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*lines, strict=True)]
    text = [_piped(line, widths) for line in lines]
    text.insert(1, "|" + "|".join((":" if i == 0 else "-") + "-" * w + ("-" if i == 0 else ":")
                                  for i, w in enumerate(widths)) + "|")  # fmt: skip
    parts = [f"### {_escaped(table.caption, MARKDOWN)}", _escaped(protocol, MARKDOWN), "\n".join(text)]
    parts += [_escaped(note, MARKDOWN) for note in table.notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_latex(table: Table, path: Path, protocol: str = "") -> None:
    """A table environment with booktabs' rules, groups of columns as headings, the protocol in its caption.

    A table wider than the text is scaled down to it.
    """
    width = len(table.columns)
    caption = ". ".join(_escaped(text.rstrip("."), LATEX) for text in (table.caption, protocol) if text)
    lines = [HEAD, r"\begin{table}", r"\centering", rf"\caption{{{caption}.}}", rf"\label{{tab:{table.name}}}"]
    lines += [FITTED, rf"\begin{{tabular}}{{l{'r' * width}}}", r"\toprule", *_latex_heads(table), r"\midrule"]
    for i, (group, rows) in enumerate(groupby(table.rows, lambda row: row.group)):
        if i:
            lines.append(r"\midrule")
        if group:
            lines.append(rf"\multicolumn{{{width + 1}}}{{l}}{{\emph{{{_escaped(group, LATEX)}}}}} \\")
        for row in rows:
            cells = [_escaped(cell, LATEX) for cell in _cells(table, row)]
            cells = [rf"\textbf{{{cell}}}" if i in row.bold else cell for i, cell in enumerate(cells)]
            lines.append(" & ".join([_escaped(row.label, LATEX), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    if table.notes:
        lines += ["", rf"\smallskip{{\footnotesize {_escaped(' '.join(table.notes), LATEX)}\par}}"]
    path.write_text("\n".join([*lines, r"\end{table}"]) + "\n", encoding="utf-8")


def _latex_heads(table: Table) -> list[str]:
    lines = []
    if any(column.group for column in table.columns):
        cells, rules, place = [""], [], 2
        for group, columns in groupby(table.columns, lambda column: column.group):
            span = len(list(columns))
            cells.append(rf"\multicolumn{{{span}}}{{c}}{{{_escaped(group, LATEX)}}}")
            if group:
                rules.append(rf"\cmidrule(lr){{{place}-{place + span - 1}}}")
            place += span
        lines = [" & ".join(cells) + r" \\", " ".join(rules)]
    return [*lines, " & ".join(["", *(_escaped(column.title, LATEX) for column in table.columns)]) + r" \\"]


def _cells(table: Table, row: Row) -> list[str]:
    return [number(value, table.decimals(row, i)) for i, value in enumerate(row.values)]


def _piped(line: list[str], widths: list[int]) -> str:
    first, *others = zip(line, widths, strict=True)
    return f"| {first[0]:<{first[1]}} |" + "".join(f" {cell:>{width}} |" for cell, width in others)


def _escaped(text: str, letters: dict[str, str]) -> str:
    return "".join(letters.get(letter, letter) for letter in text)
