import re

import pytest
from packs import write_small_pack, write_tree

from nrh_dist.errors import UserError
from nrh_dist.launch import space
from nrh_dist.launch.tune import tune
from nrh_dist.workflows import plan as module
from nrh_dist.workflows.plan import Cost, describe, expected_epochs

SPACE = """\
metric: val/mse
trials: 27
scheduler: {asha: {max_epochs: 9, grace_epochs: 1, reduction_factor: 3}}
base: {preset: tiny, model.name: ptc_att_dih, model.width: 0.1, data.val_fraction: 0.3}
space:
  model.fusion_width: {choice: [4, 8]}
  optim.lr: {loguniform: [0.0001, 0.01]}
"""


def space_file(folder, text=SPACE):
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def plan(tmp_path, *words, text=SPACE):
    said = []
    describe(space_file(tmp_path, text), [f"run.root={tmp_path / 'runs'}", *words], said.append)
    return "\n".join(said)


def test_memory_is_that_of_all_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "measured_costs", lambda *_: [Cost(0.1, 0.1, 1e9, "cpu"), Cost(0.2, 0.1, 2e9, "cpu")])
    text = plan(tmp_path, f"data.pack={write_small_pack(tmp_path).root}")
    assert "100 to 200 ms a step of 16 images on cpu" in text
    at_once = int(re.search(r"; (\d+) at once", text)[1])
    assert f"{2 * at_once}.0 GB for all at once" in text


def test_without_data_nothing_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "measured_costs", pytest.fail)
    text = plan(tmp_path)
    assert "27 trials" in text and "at most 243 epochs" not in text and "at most 243, 9 a trial" in text
    assert "1 CPU" in text and "time and memory: unknown (no data: give data.root=FOLDER" in text
    assert "time and memory: unknown (no data folder at /nowhere" in plan(tmp_path, "data.root=/nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"], "nothing is started"


@pytest.mark.parametrize("kind", [pytest.param("root", marks=pytest.mark.slow), "pack"])
def test_time_and_memory_are_measured(tmp_path, kind):
    root = write_tree(tmp_path / "tree") if kind == "root" else write_small_pack(tmp_path).root
    text = plan(tmp_path, f"data.{kind}={root}")
    assert "measured on 4 of the trials" in text
    assert "ms a step of 16 images on cpu" in text and "GB for all at once" in text
    assert "time: about" in text and ", at most" in text
    assert not (tmp_path / "runs").exists()


def test_expected_epochs_lie_between_the_first_rung_and_all(tmp_path):
    """In step, ASHA with perfect ranks would take 27 + 9 x 2 + 3 x 6 = 63; not waiting costs some more."""
    searched = space.read(space_file(tmp_path), [])
    assert 63 <= expected_epochs(searched, 27, 0) <= expected_epochs(searched, 1, 0) < 243
    full = space.read(space_file(tmp_path, SPACE.replace("asha: {max_epochs: 9, grace_epochs: 1, reduction_factor: 3}",
                                                         "none: {max_epochs: 9}")), [])  # fmt: skip
    assert expected_epochs(full, 1, 0) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optim.lr=1"], r"optim\.lr is searched here"),
        (["scale.workers=2", "scale.min_workers=1"], r"scale\.min_workers=1: the trials of a sweep keep their workers"),
        (["scale.workers=9999"], r"9999 workers need .* ask for fewer"),
        (["model.detector_weights=/nowhere"], r"model\.detector_weights=/nowhere: "),
        (["run.name=taken"], r"taken is the folder of a run"),
    ],
)
def test_mistakes_are_those_of_the_sweep(tmp_path, words, said):
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    (tmp_path / "runs" / "taken" / "config.yaml").touch()
    for start in (lambda *given: describe(*given, print), lambda *given: tune(*given, False, print)):
        with pytest.raises(UserError, match=said):
            start(space_file(tmp_path), [f"run.root={tmp_path / 'runs'}", *words])
