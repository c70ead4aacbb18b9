"""Random faults, one after the other, on trainings that must end as if nothing had happened.

    python tests/soak/soak.py --faults 160 --seed 1            the loop without Ray: 20 minutes on two cores
    python tests/soak/soak.py --ray --faults 40 --seed 1       through Ray: 25 minutes
    python tests/soak/soak.py --faults 5                       a look, a minute
    python tests/soak/soak.py --table                          the figures so far into reports/reliability.md

A line a fault, a table at the end. With --save the figures are appended to reports/reliability.json: so may be run in
pieces, each with a seed of its own. Exit code 1 where a run did not recover or gave another result than its reference.
The seed decides which faults, where and when; what they hit depends on the machine's speed.
"""

import argparse
import json
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("", "tests", "tests/engine", "tests/soak")]

FIGURES = ROOT / "reports" / "reliability.json"
REPORT = ROOT / "reports" / "reliability.md"
BEGIN, END = "<!-- soak: written by tests/soak/soak.py --table -->", "<!-- end of soak -->"


@dataclass
class Fault:
    """One fault and what came of it. ``lost``: steps that were done again; -1 where nothing was to be done again.

    ``sound``: the step of the newest checkpoint that damage left as it was, from which it has to go on; -1: no damage.
    """

    kind: str
    run: str
    step: int = 0
    resumed_from: int = -1
    sound: int = -1
    lost: int = -1
    is_recovered: bool = False
    is_as_promised: bool = True
    seconds: float = 0.0  # from the fault to the first new step, or to the end
    detail: str = ""
    at: float = 0.0  # by the clock of this process


@dataclass
class Piece:
    """What one call did."""

    mode: str
    command: str
    seed: int
    interval: int
    seconds: float
    runs: int
    wrong_results: int
    faults: list[Fault]

    @property
    def is_good(self) -> bool:
        """Whether every fault was survived as promised, and every result is right."""
        return not self.wrong_results and all(one.is_recovered and one.is_as_promised for one in self.faults)


def table(pieces: list[dict[str, Any]]) -> str:
    """Of some pieces as JSON holds them: totals, and a row for each kind of fault."""
    faults = [fault for piece in pieces for fault in piece["faults"]]
    interval = max(piece["interval"] for piece in pieces)
    lines = [
        f"{len(faults)} faults in {sum(piece['runs'] for piece in pieces)} runs, "
        f"{sum(fault['is_recovered'] for fault in faults)} recovered, "
        f"{sum(not fault['is_as_promised'] for fault in faults)} against the promise, "
        f"{sum(piece['wrong_results'] for piece in pieces)} wrong results, "
        f"{sum(piece['seconds'] for piece in pieces) / 60:.1f} minutes. "
        f"A checkpoint at least every {interval} steps.",
        "",
        "| fault | times | recovered | steps lost: mean | most | seconds to the next step: median | most |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in sorted({fault["kind"] for fault in faults}):
        of_kind = [fault for fault in faults if fault["kind"] == kind]
        lost = [fault["lost"] for fault in of_kind if fault["lost"] >= 0]
        seconds = sorted(fault["seconds"] for fault in of_kind)
        mean = f"{sum(lost) / len(lost):.1f} | {max(lost)}" if lost else "- | -"
        recovered = sum(fault["is_recovered"] for fault in of_kind)
        middle = seconds[len(seconds) // 2]
        lines.append(f"| {kind} | {len(of_kind)} | {recovered} | {mean} | {middle:.1f} | {seconds[-1]:.1f} |")
    return "\n".join(lines)


def append(piece: Piece, path: Path = FIGURES) -> None:
    """Add a piece to the figures."""
    from nrh_dist.engine.files import write_json

    pieces = json.loads(path.read_text())["pieces"] if path.exists() else []
    write_json(path, {"schema": 1, "pieces": [*pieces, asdict(piece)]})


def write_report() -> None:
    """Put the tables of all pieces so far between the marks in the report."""
    pieces = json.loads(FIGURES.read_text())["pieces"]
    parts = []
    for mode, title in (("loop", "Without Ray"), ("ray", "Through Ray")):
        if of_mode := [piece for piece in pieces if piece["mode"] == mode]:
            commands = "".join(f"    {piece['command']}\n" for piece in of_mode)
            parts.append(f"### {title}\n\n{commands}\n{table(of_mode)}\n")
    before, rest = REPORT.read_text().split(BEGIN)
    after = rest.split(END)[1]
    REPORT.write_text(before + BEGIN + "\n\n" + "\n".join(parts) + "\n" + END + after)


def run(mode: str, faults: int, seed: int, folder: Path | None = None) -> Piece:
    """Cause ``faults`` faults, saying each; runs are in ``folder`` (kept), or in one that goes."""
    if mode == "ray":
        from through_ray import soak
    else:
        from loop import soak

    return soak(faults, seed, folder)


def main(words: list[str]) -> int:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--faults", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args(words)
    if given.table:
        write_report()
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before its time"))  # nothing stays mounted or running
    piece = run("ray" if given.ray else "loop", given.faults, given.seed, given.keep)
    print(table([asdict(piece)]), flush=True)
    if given.save:
        append(piece)
    return 0 if piece.is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
