"""The protocol in one line beside each table: what the numbers in it are, by the evaluation's own words."""

import re

from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Table

MOST = 4  # definitions beside a table; all of them are at the end of the page
SHOWN = {
    "mse": "MSE",
    "psnr": "PSNR",
    "fmse": "fMSE",
    "lpips": "LPIPS",
    "identity_mse": "MSE of identity",
    "identity_psnr": "PSNR of identity",
    "mse_outside": "MSE outside the mask",
    "mse_edge": "MSE along the edge",
    "chroma_drift": "drift of a and b",
    "mse_change": "MSE of the change",
    "psnr_range": "PSNR as DoveNet's",
    "psnr_target_max": "PSNR as iSSAM's",
    "worse": "worse by > 0.01",
    "worse1": "worse by > 1",
}


def line(section: Section, table: Table) -> str:
    """Size, split, data and number of images, then the first clause of each definition that the table needs."""
    summary, images = section.evaluation.summary, len(section.identity)
    place = (
        f"{summary.size} × {summary.size} px; {summary.split} split of {' + '.join(section.datasets)}, "
        f"{images:,} image{'s' if images != 1 else ''}; means of per-image values"
    )
    needed = _needed(table, summary.protocol)
    clauses = [f"{SHOWN.get(key) or key.replace('_', ' ')}: {_first_clause(summary.protocol[key])}" for key in needed]
    return ". ".join([place, *clauses[:MOST]]) + "."


def term(key: str) -> str:
    """The key of a definition as it heads that definition."""
    return SHOWN.get(key) or f"{key[:1].upper()}{key[1:].replace('_', ' ')}"


def _needed(table: Table, protocol: dict[str, str]) -> list[str]:
    """The keys of the protocol that the table asks for or its columns name, else those that its words name."""
    of_columns = [_longest(column.key, protocol) for column in table.columns]
    found = [key for key in (*table.needs, *of_columns) if key in protocol]
    if not found:
        words = " ".join([table.caption, *(column.group for column in table.columns), *(r.group for r in table.rows)])
        found = [key for key in protocol if re.search(rf"\b{re.escape(key)}\b", words, re.IGNORECASE)]
        if "size_bin" in protocol and any(column.key.endswith("%") for column in table.columns):
            found.append("size_bin")
    return list(dict.fromkeys(found))


def _longest(column: str, protocol: dict[str, str]) -> str:
    """The longest key that the column's name is, begins with or ends in, as mse_outside of mse_outside_low and mse of
    my-run_mse; "" without one."""
    ends = [key for key in protocol if f"{column}_".startswith(f"{key}_") or column.endswith(f"_{key}")]
    return max(ends, key=len, default="")


def _first_clause(text: str) -> str:
    return text.split(";")[0].strip()
