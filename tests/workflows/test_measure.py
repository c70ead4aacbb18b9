"""What benches share: rounds in turns, medians of ratios, floors, and how they are told and kept."""

import json
import subprocess
import sys

import pytest

from nrh_dist.errors import UserError
from nrh_dist.workflows import measure


def test_all_sides_take_turns_and_turns_at_going_first():
    order = []

    def side(name, cost):
        def measured(number):
            order.append(f"{name}{number}")
            return cost + number

        return measured

    costs = measure.in_turns({"a": side("a", 2.0), "b": side("b", 10.0), "c": side("c", 0.0)}, 4)
    assert costs == {"a": [2, 3, 4, 5], "b": [10, 11, 12, 13], "c": [0, 1, 2, 3]}
    assert order == ["a0", "b0", "c0", "b1", "c1", "a1", "c2", "a2", "b2", "a3", "b3", "c3"]
    assert measure.ratios(costs["b"], costs["a"])[:3] == [5, 11 / 3, 3]


def test_a_figure_is_the_median_with_its_range():
    figure = measure.figure("speed", [3.0, 50.0, 20.0], 20.0, "a snail", "seconds", "uphill")
    assert (figure.ratio, figure.low, figure.high, figure.rounds) == (20.0, 3.0, 50.0, 3)
    assert figure.is_reached
    assert figure.line() == ("speed: 20 times a snail (3 to 50 in 3 rounds, seconds); target 20: reached; uphill")
    assert "NOT reached" in measure.figure("speed", [19.9], 20.0, "a snail", "seconds").line()
    assert measure.figure("speed", [1.0], None, "a snail", "seconds").line().endswith("seconds)")


def test_a_floor_is_our_cost_over_its_cost_by_round():
    figure = measure.figure("speed", [3.0], None, "a snail", "seconds").above([4.0, 9.0, 6.0], [2.0, 3.0, 1.0], "light")
    assert (figure.floor, figure.floor_is) == (3.0, "light")  # the median of 2, 3, 6
    assert figure.line().endswith("; 3 times the floor, light")


def test_figures_are_written_with_command_and_machine_beside_those_of_other_benches(tmp_path):
    path, said = tmp_path / "new/a.json", []
    measure.write(
        "run", "nrh bench run", [measure.figure("speed", [3.0], 2.0, "a snail", "seconds")], path, said.append
    )
    measure.write("swim", "nrh bench swim", [measure.figure("depth", [1.0], None, "a fish", "m")], path, said.append)
    measure.write(
        "run", "nrh bench run", [measure.figure("speed", [4.0], 2.0, "a snail", "seconds")], path, said.append
    )
    found = json.loads(path.read_text())
    assert found["schema"] == 2
    assert {name: bench["command"] for name, bench in found["benches"].items()} == {
        "run": "nrh bench run",
        "swim": "nrh bench swim",
    }
    run = found["benches"]["run"]
    assert run["machine"].keys() - {"gpu"} == {"cpu", "instructions", "cores", "python", "libraries"}
    assert {"numpy", "torch"} <= run["machine"]["libraries"].keys()
    assert [one["ratio"] for one in run["figures"]] == [4.0]
    assert {"name", "low", "high", "rounds", "target", "peer", "unit", "floor", "floor_is"} <= run["figures"][0].keys()
    assert "3 times a snail" in said[0] and "a.json" in said[-1]


def test_a_file_of_something_else_is_left_alone(tmp_path):
    for content in ("no JSON", "[]", '{"schema": 1, "benches": {}}', '{"schema": 2}'):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(UserError, match="no benches of schema 2"):
            measure.write("run", "nrh bench run", [], tmp_path / "a.json", print)
        assert (tmp_path / "a.json").read_text() == content
    with pytest.raises(UserError, match="is a folder"):
        measure.read(tmp_path)
    with pytest.raises(UserError, match="cannot write"):
        measure.write("run", "nrh bench run", [], tmp_path / "a.json/b.json", print)


def test_the_file_is_named_after_the_machine(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "_gpu", lambda: None)
    monkeypatch.setattr(measure, "_cpu", lambda: "Some(R) CPU @ 2.0 GHz")
    assert str(measure.default_file()).startswith("bench-some-r-cpu-2-0-ghz-")
    (tmp_path / "reports").mkdir()
    assert str(measure.default_file()).startswith("reports/bench-some-r-cpu-2-0-ghz-")
    monkeypatch.setattr(measure, "_gpu", lambda: "NVIDIA H200")
    assert str(measure.default_file()) == "reports/bench-nvidia-h200.json"
    assert measure.machine()["gpu"] == "NVIDIA H200"


def test_generations_of_a_cpu_are_told_apart(monkeypatch):
    """Their names may be the same, and one has bfloat16."""

    def told(model, flags):
        lines = (
            "processor: 0",
            "cpu family\t: 25",
            f"model\t\t: {model}",
            "model name\t: AMD EPYC",
            f"flags\t\t: {flags}",
        )
        monkeypatch.setattr(measure, "_cpuinfo", lambda: "\n".join(lines))
        return measure.machine(), measure.default_file().name

    monkeypatch.setattr(measure, "_gpu", lambda: None)
    old, old_file = told(1, "fpu avx2 sse4_1")
    new, new_file = told(17, "fpu avx2 avx512f avx512_bf16")
    assert (old["instructions"], new["instructions"]) == (["avx2"], ["avx2", "avx512f", "avx512_bf16"])
    assert old["cpu"] == "AMD EPYC family 25 model 1" and new["cpu"] == "AMD EPYC family 25 model 17"
    assert old_file.startswith("bench-amd-epyc-family-25-model-1-") and old_file != new_file
    monkeypatch.setattr(measure, "_cpuinfo", lambda: "")
    assert measure.machine()["cpu"]


def test_the_peak_of_memory_grows():
    """In a process of its own: this one may have held more before."""
    code = (
        "from nrh_dist.workflows.measure import peak_memory\n"
        "before = peak_memory(); block = bytearray(300 << 20); print(peak_memory() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 250 < float(done.stdout) < 350
