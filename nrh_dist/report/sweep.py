"""The page of a sweep, in its own folder: figures, an Optuna study and one offline page."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from nrh_dist.report import sweep_chapter, sweep_collect, sweep_study
from nrh_dist.report.page import Content, render
from nrh_dist.report.sweep_collect import TABLE

PAGE, FIGURES, STUDY = "index.html", "figures", "study.db"


def write(sweep: Path, say: Callable[[str], None]) -> Path:
    """Write ``figures``, ``study.db`` and ``index.html`` into the folder of a sweep; returns the page.

    From the files of the sweep alone, as far as it got; what an earlier call wrote is replaced when all of it is there.
    ``UserError`` where the folder is no sweep or is damaged.
    """
    found = sweep_collect.read(sweep)
    for left in sweep.glob(".page.partial-*"):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
    partial = sweep / f".page.partial-{os.getpid()}"
    try:
        (partial / FIGURES).mkdir(parents=True)
        chapter = sweep_chapter.chapter(found, sweep_chapter.SLUG, partial, TABLE if (sweep / TABLE).is_file() else "")
        (partial / PAGE).write_text(render(Content(sweeps=[chapter])), encoding="utf-8")
        sweep_study.export(found, partial / STUDY)
        if (sweep / FIGURES).exists():
            os.replace(sweep / FIGURES, partial / "before")
        for name in (FIGURES, STUDY, PAGE):
            os.replace(partial / name, sweep / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"open {sweep / PAGE}")
    return sweep / PAGE
