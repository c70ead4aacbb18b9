"""Which images are shown, by rules that are told and never by hand."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nrh_dist import failures
from nrh_dist.engine.summary import Scores, mean
from nrh_dist.schema import MASKED_MODEL

IDENTITY = "identity"
EACH = 2  # images of a group
SEVERAL, MOST = "one photo, several composites", 3  # the group that is exempt from "no two composites of one photo"
SPREAD = 6  # images where there is nothing but the inputs
SEED = 0
RULE = (
    "by what {run}, the run of lowest mean MSE{without} made of them; no two composites of one photo, but in the "
    f"group “{SEVERAL}”"
)
RULE_WITHOUT = "those nearest to {count} evenly spaced ranks of the input's MSE, from lowest to highest"
RULES = {
    "best": "where the MSE fell most",
    "median": "nearest to the median change of the MSE",
    "worst": "where the MSE rose most, or fell least",
    "random": f"drawn with seed {SEED} from all images",
    SEVERAL: f"of the photo with the most composites, ties decided by name, the first {MOST} by name",
    **{group: f"failures, {rule}: those of largest error" for group, rule in failures.RULES.items()},
}


class Example(NamedTuple):
    """One image (its place in the evaluation), the group that it was chosen for, and its change of MSE."""

    place: int
    group: str
    change: float


def judged(scores: Sequence[Scores]) -> Scores | None:
    """The run by which images are chosen: of lowest mean MSE without a mask, else of all; None of none."""
    runs = [one for one in scores if one.model != IDENTITY and mean(one.values["mse"]) is not None]
    free = [one for one in runs if one.model != MASKED_MODEL]
    return min(free or runs, key=lambda one: mean(one.values["mse"]) or 0.0, default=None)


def rule(run: Scores | None) -> str:
    """How the images are chosen, in a sentence."""
    if run is None:
        return RULE_WITHOUT.format(count=SPREAD)
    return RULE.format(run=run.run, without="" if run.model == MASKED_MODEL else " among those that see no mask,")


def spread(values: np.ndarray, names: Sequence[str], count: int) -> list[int]:
    """The places of ``count`` images nearest to evenly spaced ranks of ``values``, lowest first; ties by name."""
    order = sorted(range(len(values)), key=lambda place: (values[place], names[place]))
    count = min(count, len(order))
    return [order[int((index + 0.5) * len(order) / count)] for index in range(count)]


def choose(run: Scores, names: Sequence[str], photos: Sequence[str]) -> list[Example]:
    """``EACH`` images of each group of ``RULES``, as far as there are some, then ``several``; ties are decided by name.

    ``names`` and ``photos`` (what two composites of one photo have in common) are those of all N images. An image
    without an MSE is in no group but "random".
    """
    values = run.values
    change = values["mse"] - values["identity_mse"]
    by_name = np.array(sorted(range(len(names)), key=lambda place: (names[place], place)))

    def ordered(key: np.ndarray, which: np.ndarray) -> list[int]:
        """The places where ``which`` holds, by ``key``, then by name."""
        places = by_name[which[by_name]]
        return places[np.argsort(key[places], kind="stable")].tolist()

    known = ~np.isnan(change)
    middle = np.abs(change - np.nanmedian(change)) if known.any() else change
    found = failures.groups(
        *(values[name] for name in ("mse", "identity_mse", "correction", "change_outside", "detected"))
    )
    orders = {
        "best": ordered(change, known),
        "median": ordered(middle, known),
        "worst": ordered(-change, known),
        "random": np.random.default_rng(SEED).permutation(by_name).tolist(),
        **{group: ordered(-values["mse"], found == group) for group in failures.RULES},
    }
    chosen: list[Example] = []
    taken: set[str] = set()
    for group, places in orders.items():
        for place in places:
            if sum(one.group == group for one in chosen) == EACH:
                break
            if photos[place] not in taken:
                taken.add(photos[place])
                chosen.append(Example(place, group, float(change[place])))
    is_composite = values["identity_mse"] > 0
    return chosen + [Example(place, SEVERAL, float(change[place])) for place in several(names, photos, is_composite)]


def several(names: Sequence[str], photos: Sequence[str], is_composite: np.ndarray) -> list[int]:
    """The places of up to ``MOST`` composites of the photo that has the most, two at least; ties by name.

    ``photos`` may hold several photos of one scene as one: here a photo is what stands before a name's last two
    underscores, too.
    """
    by_photo: dict[tuple[str, str], list[int]] = {}
    for place in sorted(np.flatnonzero(is_composite).tolist(), key=lambda place: (names[place], place)):
        by_photo.setdefault((names[place].rsplit("_", 2)[0], photos[place]), []).append(place)
    found = max(by_photo.values(), key=len, default=[])
    return found[:MOST] if len(found) > 1 else []
