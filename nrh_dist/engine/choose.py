"""``nrh best``: gather, measure what it costs, rank, say why, export."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from nrh_dist.engine import checkpoint, chosen, cost, ranking
from nrh_dist.engine.dist import own_device
from nrh_dist.engine.export import export, require_new
from nrh_dist.engine.gather import Found, gather
from nrh_dist.engine.progress import Say
from nrh_dist.engine.ranking import Candidate, Values
from nrh_dist.errors import UserError
from nrh_dist.schema import MASKED_MODEL

SHOWN = 10
DETECTOR = "ptc"


def best(folders: Sequence[Path], metrics: Sequence[str], pareto: bool, out: Path | None, say: Say) -> Candidate:
    """Choose among all checkpoints below ``folders``, say which and why, and export it to ``out`` where given.

    By the first of ``metrics`` (none given: val/mse, or mse where there are evaluations alone), ties by the next, then
    by ``ranking.TIES``. With ``pareto`` only those on the front of all ``metrics`` are ranked; where these hold costs
    alone, that default joins, and where they hold none, parameters and operations do. A latency is measured here and
    now, only if it is asked for. A harmoniser that is chosen is remembered for those who name none.
    """
    if out is not None:
        require_new(out)
    found = gather(folders)
    metrics = list(metrics)
    if not metrics or (pareto and set(metrics) <= set(cost.COSTS)):
        metrics.insert(0, _default(found))
    if pareto and not set(metrics) & set(cost.COSTS):
        metrics += [cost.PARAMETERS, cost.GFLOP]
    add_costs(found.candidates, metrics)
    compared = ranking.comparable(found.candidates, metrics)
    ranked = ranking.rank(on_front(compared, metrics) if pareto else compared, metrics)
    for line in [*lines(ranked, compared, metrics, pareto, found), *found.notes]:
        say(line)
    best = ranked[0]
    if out is not None:
        if best.path is None:
            raise UserError(f"the checkpoint of {best.run} is gone, so that it cannot be exported: train it again")
        export(best.path, best.evaluations, out, say)
    if (place := out or best.path) and best.model.get("name") != DETECTOR:
        chosen.note(place)
    return best


def on_front(candidates: Sequence[Candidate], metrics: Sequence[str]) -> list[Candidate]:
    """Those that no other one beats in one of the ``metrics`` without losing in another."""
    on = ranking.front([ranking.point(one, metrics) for one in candidates])
    return [one for one, is_on in zip(candidates, on, strict=True) if is_on]


def add_costs(candidates: Sequence[Candidate], metrics: Sequence[str]) -> None:
    """Give every candidate those of ``cost.COSTS`` that are among ``metrics``; each network is measured once."""
    if {cost.PARAMETERS, cost.GFLOP} & set(metrics):
        _add(candidates, "any machine", cost.costs_of)
    if cost.LATENCY in metrics:
        device = own_device()
        _add(candidates, machine(device), lambda model, size: {cost.LATENCY: cost.latency_ms(model, size, device)})


def machine(device: torch.device) -> str:
    """What a latency is measured on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"the CPU of this machine with {torch.get_num_threads()} thread(s)"


def lines(
    ranked: Sequence[Candidate], compared: Sequence[Candidate], metrics: Sequence[str], pareto: bool, found: Found
) -> list[str]:
    """For a person: the best with the reason, the first ones in order, and what to mind about the numbers."""
    return [
        f"{ranked[0].path or ranked[0].run}  ({_reason(ranked, compared, metrics, pareto)})",
        *_table(ranked, metrics, found.identity),
        *_cautions(ranked, compared, metrics, found),
    ]


def _default(found: Found) -> str:
    metrics = {metric for one in found.candidates for metric in one.values}
    return "mse" if "mse" in metrics and "val/mse" not in metrics else "val/mse"


def _add(
    candidates: Sequence[Candidate], data: str, measure: Callable[[dict[str, Any], int], dict[str, float]]
) -> None:
    known: dict[str, dict[str, float]] = {}
    for one in candidates:
        if one.model:
            network = json.dumps([one.model, one.size], sort_keys=True)
            if network not in known:
                known[network] = measure(one.model, one.size)
            one.add(known[network], data)


def _reason(ranked: Sequence[Candidate], compared: Sequence[Candidate], metrics: Sequence[str], pareto: bool) -> str:
    first, *others = metrics
    end = "highest" if ranking.sign(first) < 0 else "lowest"
    among = f"the {len(ranked)} on the Pareto front of {len(compared)}" if pareto else str(len(compared))
    reason = f"{end} {first} of {among} kept checkpoints"
    tied = sum(one.value(first) == ranked[0].value(first) for one in ranked) - 1
    shared = f", shared by {tied} more" if tied else ""
    return f"{reason}{shared}; ties go to {', '.join([f'the better {metric}' for metric in others] + [ranking.TIES])}"


def _table(ranked: Sequence[Candidate], metrics: Sequence[str], identity: Values) -> list[str]:
    """The first ``SHOWN`` in order, and what doing nothing gives where that is known, in aligned columns."""
    shown = ranked[:SHOWN]
    places: dict[str, set[Path]] = defaultdict(set)  # of each run's name
    for one in shown:
        places[one.run].add(_run_folder(one))
    rows = [["", "run", "model", "epoch", *metrics]]
    for number, one in enumerate(shown, start=1):
        run = one.run if len(places[one.run]) == 1 else str(_run_folder(one))
        values = [f"{one.value(metric):.6g}" for metric in metrics]
        rows.append([str(number), run, one.model.get("name", ""), str(one.epoch), *values])
    nothing = [_doing_nothing(ranked[0], metric, identity) for metric in metrics]
    if any(value is not None for value in nothing):
        rows.append(["", "identity", "", "", *("" if value is None else f"{value:.6g}" for value in nothing)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    alignments = "><<" + ">" * len(rows[0])
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, alignments, widths, strict=False)).rstrip()
        for row in rows
    ]


def _run_folder(one: Candidate) -> Path:
    if one.path is None:
        return Path(one.run)
    return one.path.parents[1] if one.path.parent.name == checkpoint.FOLDER else one.path


def _doing_nothing(one: Candidate, metric: str, identity: Values) -> float | None:
    """What doing nothing gives on the data that ``one`` was measured on."""
    (data,) = one.values[metric]
    return identity.get(metric, {}).get(data)


def _cautions(
    ranked: Sequence[Candidate], compared: Sequence[Candidate], metrics: Sequence[str], found: Found
) -> list[str]:
    best, first, said = ranked[0], metrics[0], []
    if left_out := len(found.candidates) - len(compared):
        said.append(f"left out: {left_out} checkpoints without {' and '.join(metrics)}")
    nothing = _doing_nothing(best, first, found.identity)
    sign = ranking.sign(first)
    if nothing is not None and sign * nothing <= sign * best.value(first):
        said.append(f"doing nothing (identity) is as good or better: {first} {nothing:.6g}")
    maskless = [one for one in ranked if one.model.get("name") != MASKED_MODEL]
    if maskless and best.model.get("name") == MASKED_MODEL:
        other = maskless[0]
        where = other.path or other.run
        said.append(f"{MASKED_MODEL} is given the object's mask; the best without: {where}, {other.value(first):.6g}")
    for metric in metrics:
        data = {name for one in compared for name in one.values[metric]}
        if metric == cost.LATENCY:
            said.append(f"{metric}: median of {cost.REPEATS} passes of one image, on {', '.join(data)}")
        elif len(data) > 1:
            said.append(f"{metric} is of {len(data)} different validations (data, size or seed): compare with care")
    return said
