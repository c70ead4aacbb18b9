"""What became of every candidate pair of a split of COCO-Exp: on the disk as soon as it is known."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nrh_dist.data import coco_exp
from nrh_dist.data.coco_exp import Outcome, Settings
from nrh_dist.data.pairs import Pair
from nrh_dist.engine.files import read_lines, write_lines
from nrh_dist.errors import UserError

SCHEMA = 2


class Log:
    """``COCOExp/candidates_<split>.jsonl``: the settings, then one outcome a line."""

    def __init__(self, out: Path, settings: Settings, annotations: Path, count: int) -> None:
        """Read what there is. ``UserError`` if it is of other settings or of more than ``count`` composites.

        A count is noted before its work starts: a smaller one would no longer give the files of a run of its own.
        """
        with annotations.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._settings, self._out = settings, out
        self._path = out / coco_exp.SUBSET / f"candidates_{settings.split}.jsonl"
        self._header = {"schema": SCHEMA, **asdict(settings), "annotations": digest, "count": count}
        lines = read_lines(self._path)
        if lines:
            self._check({"val_fraction": 0.0, **lines[0]})  # of before there was one
        self.outcomes = {line["index"]: Outcome(**line) for line in lines[1:]}
        self.finish(count)

    def is_done(self, pair: Pair) -> bool:
        """Whether ``pair`` was rejected, or made and its files are still there and not empty."""
        outcome = self.outcomes.get(pair.index)
        if outcome is None or outcome.rejected:
            return outcome is not None
        return all(coco_exp.is_written(file) for file in coco_exp.files_of(pair, self._settings, self._out))

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Note more outcomes."""
        self.outcomes.update({outcome.index: outcome for outcome in outcomes})
        with self._path.open("a") as file:
            file.writelines(json.dumps(vars(outcome)) + "\n" for outcome in outcomes)

    def finish(self, count: int) -> None:
        """Write everything anew, in the candidates' order, as the log of ``count`` composites."""
        self._header["count"] = count
        ordered = (vars(self.outcomes[index]) for index in sorted(self.outcomes))
        write_lines(self._path, [self._header, *ordered])

    def rejected(self) -> dict[str, int]:
        """How many candidates were rejected, by reason."""
        return dict(sorted(Counter(outcome.rejected for outcome in self.outcomes.values() if outcome.rejected).items()))

    def _check(self, header: dict[str, Any]) -> None:
        changed = [key for key in self._header if key != "count" and header.get(key) != self._header[key]]
        if changed:
            was = ", ".join(f"{key}: {header.get(key)} -> {self._header[key]}" for key in changed)
            split = self._settings.split
            raise UserError(f"{self._out} has a {split} split made otherwise ({was}); choose another --out")
        if header["count"] > self._header["count"]:
            raise UserError(
                f"{self._out} has a {self._settings.split} split of {header['count']} composites, finished or begun; "
                "ask for at least as many or choose another --out"
            )
