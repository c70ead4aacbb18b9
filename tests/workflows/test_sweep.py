import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

import sweeps

from nrh_dist.engine.notice import Stopped
from nrh_dist.errors import UserError
from nrh_dist.workflows import sweep as module

SPACE = """\
metric: val/mse
trials: 6
scheduler: {asha: {max_epochs: 9}}
base: {preset: tiny, model.name: ptc_att_dih}
space:
  optim.lr: {loguniform: [0.0001, 0.003]}
"""


def swept(folder, monkeypatch, error):
    """What is said of a sweep that ends with ``error``."""

    def tune(*_):
        raise error

    monkeypatch.setattr(module, "tune", tune)
    (folder / "space.yaml").write_text(SPACE)
    said = []
    with pytest.raises(type(error), match=str(error)):
        module.sweep(folder / "space.yaml", [f"run.root={folder}", "run.name=night"], False, said.append)
    return said


def test_a_sweep_that_is_stopped_is_drawn_as_far_as_it_got(tmp_path, monkeypatch):
    sweeps.write(tmp_path / "night", trials=6, begun=3, running=2)
    said = swept(tmp_path, monkeypatch, Stopped("to go on: nrh tune"))
    assert said == [f"open {tmp_path / 'night' / 'index.html'}"]
    assert {"index.html", "study.db", "figures"} <= {path.name for path in (tmp_path / "night").iterdir()}
    shutil.rmtree(tmp_path / "night")
    (said,) = swept(tmp_path, monkeypatch, Stopped("to go on: nrh tune"))
    assert said.startswith("no page: "), "how to go on is told all the same"


def test_a_mistake_draws_nothing(tmp_path, monkeypatch):
    sweeps.write(tmp_path / "night", trials=6)
    assert swept(tmp_path, monkeypatch, UserError("another sweep")) == []
    assert not (tmp_path / "night" / "index.html").exists()
