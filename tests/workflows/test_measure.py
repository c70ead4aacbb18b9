"""What benches share: rounds in turns, medians of ratios, and how they are told and kept."""

import json
import subprocess
import sys

import pytest

from nrh_dist.errors import UserError
from nrh_dist.workflows import measure


def test_the_two_sides_take_turns_and_the_ratio_is_peer_over_ours():
    order = []

    def ours(number):
        order.append(f"ours {number}")
        return 2.0

    def peer(number):
        order.append(f"peer {number}")
        return 10.0 + number

    assert measure.interleaved(ours, peer, 3) == [5.0, 5.5, 6.0]
    assert order == ["ours 0", "peer 0", "peer 1", "ours 1", "ours 2", "peer 2"]


def test_a_figure_is_the_median_with_its_range():
    figure = measure.figure("speed", [3.0, 50.0, 20.0], 20.0, "a snail", "seconds", "uphill")
    assert (figure.ratio, figure.low, figure.high, figure.rounds) == (20.0, 3.0, 50.0, 3)
    assert figure.is_reached
    assert figure.line() == ("speed: 20 times a snail (3 to 50 in 3 rounds, seconds); target 20: reached; uphill")
    assert "NOT reached" in measure.figure("speed", [19.9], 20.0, "a snail", "seconds").line()
    assert measure.figure("speed", [1.0], None, "a snail", "seconds").line().endswith("seconds)")


def test_figures_are_written_with_the_machine(tmp_path):
    said = []
    measure.write([measure.figure("speed", [3.0], 2.0, "a snail", "seconds")], tmp_path / "new/a.json", said.append)
    found = json.loads((tmp_path / "new/a.json").read_text())
    assert found["schema"] == 1
    assert {"cpu", "cores", "python", "libraries"} == found["machine"].keys()
    assert "numpy" in found["machine"]["libraries"]
    assert {"name", "ratio", "low", "high", "rounds", "target", "peer", "unit"} <= found["figures"][0].keys()
    assert "3 times a snail" in said[0] and "a.json" in said[-1]
    with pytest.raises(UserError, match="cannot write"):
        measure.write([], tmp_path / "new/a.json/b.json", said.append)


def test_the_file_is_named_after_the_machine(monkeypatch):
    monkeypatch.setattr(measure, "_cpu", lambda: "Some(R) CPU @ 2.0 GHz")
    assert measure.default_file().name.startswith("bench-some-r-cpu-2-0-ghz-")


def test_the_peak_of_memory_grows():
    """In a process of its own: this one may have held more before."""
    code = (
        "from nrh_dist.workflows.measure import peak_memory\n"
        "before = peak_memory(); block = bytearray(300 << 20); print(peak_memory() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 250 < float(done.stdout) < 350
