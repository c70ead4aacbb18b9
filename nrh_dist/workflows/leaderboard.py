"""The leaderboard with new results in it: evaluations made small, with what their configurations changed."""

from pathlib import Path
from typing import Any

from nrh_dist import config as configuration
from nrh_dist.errors import UserError
from nrh_dist.report import files, leaderboard, leaderboard_result
from nrh_dist.report.checks import check_summary
from nrh_dist.report.collect import read

ALWAYS = ("preset", "model.name", "seed")  # told even where they are the defaults
PATHS = {f"{section}.{key}" for section, key in configuration.PATH_KEYS}


def add(folder: Path, evaluation: Path, name: str | None, note: str) -> Path:
    """Keep the evaluation as the result ``name`` (default: its folder's) below ``folder``; returns the file."""
    name = name or evaluation.resolve().name
    with files.explained():
        found = read(evaluation)
    check_summary(found)
    result = leaderboard_result.compact(found, name, note, changed)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the one that holds results and studies, as in reports")
    return leaderboard_result.save(result, folder)


def refresh(folder: Path, check: bool) -> Path:
    """Write the leaderboard of ``folder``, or with ``check`` only raise ``UserError`` where it is not up to date."""
    if check:
        leaderboard.check(folder)
        return folder / leaderboard.PAGE
    return leaderboard.write(folder)


def changed(flat: dict[str, Any]) -> dict[str, Any]:
    """Of a flat configuration, what decides its result and differs from the defaults of its stage and preset.

    Of paths, the last name. A configuration that this version cannot read is given whole.
    """
    words = [f"{key}={flat[key]}" for key in ("stage", *ALWAYS) if flat.get(key) is not None]
    try:
        defaults = configuration.flatten(configuration.load(None, words))
    except UserError:
        defaults = {}
    return {
        key: Path(str(value)).name if key in PATHS and value else value
        for key, value in flat.items()
        if key.split(".")[0] not in configuration.PLACE_KEYS
        and (key in ALWAYS or key not in defaults or value != defaults[key])
    }
