import os
import subprocess
import sys

import pytest

from nrh_dist import config
from nrh_dist.engine import rundir
from nrh_dist.errors import UserError


def configured(folder, *words):
    return config.load(None, [f"run.root={folder}", "run.name=r", *words])


def test_the_resolved_configuration_is_there_before_work_starts(tmp_path):
    one = configured(tmp_path, "preset=tiny")
    with rundir.claimed(one) as folder:
        assert config.load(folder / "config.yaml") == one


def test_another_configuration_is_refused_naming_the_keys(tmp_path):
    with rundir.claimed(configured(tmp_path)) as folder:
        pass
    before = (folder / "config.yaml").read_text()
    with (
        pytest.raises(UserError, match=r"optim.lr: 0.001 -> 0.5.*run.name"),
        rundir.claimed(configured(tmp_path, "optim.lr=0.5")),
    ):
        pass
    assert (folder / "config.yaml").read_text() == before
    with rundir.claimed(configured(tmp_path, "scale.workers=2")):
        pass


def test_a_folder_in_use_is_refused_and_freed_by_death(tmp_path):
    code = (
        "import sys, time\nfrom nrh_dist.engine import rundir\nfrom pathlib import Path\n"
        f"with rundir.locked(Path({str(tmp_path / 'r')!r})):\n    print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="in use"), rundir.claimed(configured(tmp_path)):
            pass
        holder.kill()
    with rundir.claimed(configured(tmp_path)):
        pass


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write"), rundir.claimed(configured(tmp_path)):
        pass


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "r").write_text("")
    with pytest.raises(UserError, match="cannot write"), rundir.claimed(configured(tmp_path)):
        pass
