from itertools import product

import pytest

from nrh_dist.launch import space
from nrh_dist.report.search_curves import medians
from nrh_dist.workflows import bench_sweep
from nrh_dist.workflows.bench_sweep import FREEZES, RATES, WIDTHS, bench


def made_up(crossing=False):
    """Straight curves to 42 values, a third of them all but equal; crossing: what is good at last is bad at first."""
    table = {}
    for number, cell in enumerate(product(WIDTHS, FREEZES, RATES)):
        last = 100.0 + max(0, (37 * number) % 42 - 13)
        first = 300 - last if crossing else last + 60
        table[cell] = [first + (last - first) * epoch / 26 for epoch in range(27)]
    return table


@pytest.fixture(autouse=True)
def beside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_early_stopping_finds_in_a_tenth_what_keeps_its_rank(tmp_path):
    full, asha, _, tpe = bench(print, made_up())
    assert asha.ratio > full.ratio and asha.is_reached and full.target is None
    assert asha.rounds == tpe.rounds == 5
    assert "within 1 % of it after" in asha.note and full.note.endswith("after as many epochs 1 times")
    assert (tmp_path / "sweep-curves.png").stat().st_size > 10_000


def test_it_does_not_where_ranks_turn_round():
    """What a bench finds that cannot fail is worth nothing."""
    _, asha, *_ = bench(print, made_up(crossing=True))
    assert not asha.is_reached


def test_the_best_so_far_never_rises():
    events = iter([(0, 1, 3.0), (1, 1, 5.0), (0, 2, 2.0), (1, 2, 4.0)])
    assert bench_sweep._best_so_far(lambda: events, 3) == [3.0, 3.0, 2.0]
    assert medians([[3.0, 1.0], [5.0, 2.0], [4.0, 9.0]]) == [4.0, 2.0]


def test_what_is_trained_is_a_valid_space(tmp_path):
    (tmp_path / "space.yaml").write_text(bench_sweep.SPACE)
    assert space.read(tmp_path / "space.yaml", ["data.root=x"]).trials == len(made_up())
