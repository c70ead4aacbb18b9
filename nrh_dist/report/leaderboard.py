"""The leaderboard: ``README.md`` of a folder of reports, made from its result files and studies, never by hand."""

import re
from pathlib import Path

from nrh_dist.errors import UserError
from nrh_dist.report import files, paper
from nrh_dist.report import leaderboard_result as results
from nrh_dist.report.leaderboard_result import DataSet, Published, Run, training_command
from nrh_dist.report.parts import number
from nrh_dist.report.result import IDENTITY

PAGE = "README.md"
FIRST_LINE = (
    "<!-- Made by `nrh leaderboard` from results/*.json and the studies beside it. Do not edit: "
    "the next call replaces it. -->"
)
OPENING = """# Reports

Results that are kept with the project: numbers, plots, and pictures of the procedural sample scenes. Pictures of photos
are made by the commands and not committed. Negative results stay in."""
COLUMNS = ("", "source", "mask", "px", "images", "MSE", "95 %", "PSNR, dB", "fMSE", "LPIPS", "change of MSE, %",
           "made worse by > 1, %", "commit")  # fmt: skip
WORDS = 3  # of them are no numbers
NONE = "–"
Entry = tuple[Published, DataSet]


def write(folder: Path) -> Path:
    """Write ``README.md`` into ``folder`` and return it; a failure leaves the earlier one as it was."""
    page = folder / PAGE
    files.write_text(page, render(folder))
    return page


@files.explained()
def check(folder: Path) -> None:
    """``UserError`` where ``README.md`` is not what ``write`` would write."""
    page = folder / PAGE
    if not page.is_file() or page.read_text(encoding="utf-8", errors="replace") != render(folder):
        raise UserError(f"{page} is not what its results and studies give: run nrh leaderboard {folder}")


@files.explained()
def render(folder: Path) -> str:
    """The page as text; ``UserError`` for a folder that is none, a damaged result or a study without a heading."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the one that holds results and studies, as in reports")
    found = results.load(folder)
    entries = [(result, one) for result in found for one in result.data_sets]
    others = dict.fromkeys(one.title for _, one in entries if not one.collection)
    parts = [FIRST_LINE, OPENING, "## Leaderboard", _about()]
    parts += [part for name in paper.COLLECTIONS for part in _collection(name, _of(entries, name))]
    parts += [part for title in others for part in _other(title, [e for e in entries if e[1].title == title])]
    if found:
        parts += ["## How ours were made", *(part for result in found for part in _made(result))]
    studies = _studies(folder)
    if studies:
        parts += ["## Studies", "\n".join(studies)]
    return "\n\n".join(parts) + "\n"


def _about() -> str:
    return (
        "Means of per-image values on the test split, where no other is named. Ours carry a 95 % interval, by a "
        "bootstrap over photos, and link to the file that they are read from; “paper” is what this project reproduces "
        f"({paper.CITATION}); the other methods are given the mask. Published numbers come from other trainings, so "
        "that they orient and do not compare; sizes differ where px says so."
    )


def _of(entries: list[Entry], collection: str) -> list[Entry]:
    return [entry for entry in entries if entry[1].collection == collection]


def _collection(name: str, entries: list[Entry]) -> list[str]:
    """A data set of the paper: ours, the paper's Table 2, and on iHarmony4 what is reached with the mask."""
    rows = _ours(entries)
    for model, (mse, psnr) in paper.TABLE_2[name].items():
        mask = "yes" if model in paper.SEES_THE_MASK else ""
        source = "measured" if model == IDENTITY and name == "iHarmony4" else "paper, Table 2"
        source = "paper, from Table 3" if model == IDENTITY and name == "COCO-Exp" else source
        decimals = 2 if isinstance(mse, float) else 0
        values = [number(mse, decimals), "", NONE if psnr is None else number(psnr, 2)]
        images = "7,404" if name == "iHarmony4" else "68,128"
        rows.append([paper.LABELS[model], source, mask, "256", images, *values, "", "", "", "", ""])
    if name == "iHarmony4":
        for method, (mse, psnr) in paper.MASKED_METHODS.items():
            values = [number(mse, 2), "", number(psnr, 2)]
            rows.append([method, "as published", "yes", "256", "7,404", *values, "", "", "", "", ""])
    notes = [paper.IDENTITY_NOTE[name]]
    if name == "iHarmony4":
        notes.append(paper.MASKED_METHODS_NOTE)
    if not entries:
        notes.append("None of ours yet.")
    sizes = _by_size(entries) or []
    published = [
        [paper.LABELS[model], "paper, Table 3", *(number(value, 2) for value in values)]
        for model, values in paper.TABLE_3[name].items()
    ]
    bins = [f"{10 * i}–{10 * i + 10} %" for i in range(len(paper.IHARMONY4_BIN_COUNTS))]
    if name == "iHarmony4":
        counts = [f"{count:,}" for count in paper.IHARMONY4_BIN_COUNTS]
        published.insert(0, ["images", "counted", *counts])
    title = f"MSE on {name} by the share of the image that the object covers, published:"
    return [f"### {name}", _table(COLUMNS, rows, WORDS), " ".join(notes), *sizes, title,
            _table(("", "source", *bins), published, 2)]  # fmt: skip


def _other(title: str, entries: list[Entry]) -> list[str]:
    return [f"### {_text(title)}", _table(COLUMNS, _ours(entries), WORDS), *_by_size(entries)]


def _ours(entries: list[Entry]) -> list[list[str]]:
    """A row a run; doing nothing once a data set of the same size, count and numbers, whatever it was measured by."""
    rows: list[list[str]] = []
    for result, one in entries:
        for run in one.runs:
            row = _row(result, one, run)
            if run.model != IDENTITY or row[:1] + row[2:-1] not in [other[:1] + other[2:-1] for other in rows]:
                rows.append(row)
    return rows


def _row(result: Published, one: DataSet, run: Run) -> list[str]:
    images = f"{sum(one.counts.values()):,}"
    mask = "yes" if run.model in paper.SEES_THE_MASK else ""
    return [
        _text(run.label) if run.model == IDENTITY else f"**{_text(run.label)}**",
        f"ours: [{_text(result.name)}]({results.FOLDER}/{result.name}.json)"
        + (f", {_text(result.split)} split" if result.split != "test" else ""),
        mask,
        str(result.size),
        images,
        _number(run.mse, 2),
        _interval(run.mse_interval, 1),
        _number(run.psnr, 2),
        _number(run.fmse, 1),
        _number(run.lpips, 4),
        _number(run.change_percent, 1, sign=True),
        _number(run.worse1_percent, 1),
        _commit(result),
    ]


def _by_size(entries: list[Entry]) -> list[str]:
    """MSE by object size of ours, a table a result: their images differ."""
    parts = []
    for result, one in entries:
        bins = one.runs[0].bins
        if not bins:
            continue
        titles = [each.bin.replace("-", "–").replace("%", " %") for each in bins]
        rows = [["images", *(f"{each.count:,}" for each in bins)]]
        for run in one.runs:
            values = {each.bin: each.mse for each in run.bins}
            rows.append([_text(run.label), *(_number(values.get(each.bin), 1) for each in bins)])
        parts += [f"MSE in {_text(result.name)} by the share of the image that the object covers:",
                  _table(("", *titles), rows)]  # fmt: skip
    return parts


def _made(result: Published) -> list[str]:
    """Note, commit, cost and commands of one result."""
    counts = {name: count for one in result.data_sets for name, count in one.counts.items()}
    names = " + ".join(counts)
    photos = sum(one.photos for one in result.data_sets)
    lines = [
        f"{_text(names)}: {sum(counts.values()):,} images of {photos:,} photos, {result.split} split, "
        f"{result.size} × {result.size} px.",
        _text(result.note),
        f"Commit: {_text(result.commit or 'not recorded')}"
        + (f", nrh_dist {_text(result.version)}." if result.version else "."),
        f"Evaluation: {_cost(result)}.",
        f"LPIPS was not measured: {_text(result.lpips)}." if result.lpips else "",
    ]
    runs = {run.run: run for one in result.data_sets for run in one.runs if run.model != IDENTITY}
    table = [
        [_text(run.label), _code(training_command(run)), *_checkpoint(run), _trained(run)] for run in runs.values()
    ]
    parts = [f"### {_text(result.name)}", "\n".join(line for line in lines if line)]
    if table:
        titles = ("", "training: what differs from the defaults", "epoch, step", "sha256", "cost")
        parts.append(_table(titles, table, len(titles)))
    return [*parts, f"```sh\n{result.command}\n```"] if result.command else parts


def _checkpoint(run: Run) -> list[str]:
    place = f"{run.epoch}, {run.step}" if run.epoch is not None and run.step is not None else NONE
    return [place, _code(run.digest[:12]) or NONE]


def _trained(run: Run) -> str:
    made = run.training
    if made is None or made.hours is None:
        return "not recorded"
    workers = f", {made.workers} worker{'s' if made.workers != 1 else ''}" if made.workers is not None else ""
    return f"{number(made.hours, 3)} hours{workers}{f', {_text(made.device)}' if made.device else ''}"


def _commit(result: Published) -> str:
    commit, plus, changes = (result.commit or "").partition("+")
    return f"{_code(commit[:10])}{plus}{_text(changes)}" if commit else NONE


def _cost(result: Published) -> str:
    hours = ((result.gpu_hours, "GPU"), (result.cpu_hours, "CPU"))
    parts = [f"{number(value, 3)} {kind} hours" for value, kind in hours if value is not None]
    return ", ".join(filter(None, [_text(result.device), *parts])) or "cost not recorded"


def _studies(folder: Path) -> list[str]:
    """A line a study, a page of its own or one in a folder of its own: its title, linked, and its first paragraph."""
    lines = []
    pages = [path for path in folder.glob("*.md") if path.name != PAGE]
    for path in sorted([*pages, *folder.glob(f"*/{PAGE}")]):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from None
        written = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
        blocks = [block.strip() for block in written.split("\n\n") if block.strip()]
        heading = blocks[0].splitlines()[0] if blocks else ""
        if not heading.startswith("# "):
            raise UserError(f"{path} must begin with a heading, as in '# Title': its first line is its place in {PAGE}")
        text = next((block for block in blocks[1:] if block[0].isalnum() or block[0] in "*`[(“"), "")
        first = re.sub(":$", ".", " ".join(text.split()))
        lines.append(f"* [{heading.removeprefix('# ')}]({path.relative_to(folder)}): {first}")
    return lines


def _table(titles: tuple[str, ...], rows: list[list[str]], words: int = 1) -> str:
    """A Markdown table whose first columns are ``words``, all others numbers."""
    rule = ["---"] * words + ["---:"] * (len(titles) - words)
    return "\n".join("| " + " | ".join(line) + " |" for line in ([*titles], rule, *rows))


def _interval(bounds: tuple[float, float] | None, decimals: int) -> str:
    return NONE if bounds is None else " to ".join(number(bound, decimals) for bound in bounds)


def _number(value: float | None, decimals: int, sign: bool = False) -> str:
    return NONE if value is None else number(value, decimals, sign)


def _code(text: str) -> str:
    """Text as code in a cell of a table, where a bar would end the cell."""
    return f"`{text.replace('`', '').replace('|', '∣')}`" if text else ""


def _text(text: str) -> str:
    """Words that come from files, without a meaning to Markdown."""
    escaped = "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in text)
    return " ".join(escaped.split())
