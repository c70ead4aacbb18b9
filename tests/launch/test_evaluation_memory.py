"""An evaluation takes as much memory for ten thousand images as for one thousand."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from packs import write_repeated_pack, write_small_pack

from nrh_dist.workflows.sample import random_checkpoint

DRIVER, ACTOR = "driver", "actor"


def anonymous_bytes(pid: int) -> int:
    """What a process holds that is no file: a map of a pack or of the numbers is one."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def peaks_of(words: list[str]) -> dict[str, int]:
    """The largest memory that the driver and the actor of ``nrh words`` ever held."""
    found = {DRIVER: 0, ACTOR: 0}
    with subprocess.Popen([sys.executable, "-m", "nrh_dist", *words]) as process:
        driver, actors = psutil.Process(process.pid), []
        while process.poll() is None:
            with suppress(psutil.Error, OSError):
                if not actors:
                    below = driver.children(recursive=True)
                    actors = [one.pid for one in below if "ray::ScoringActor" in " ".join(one.cmdline())]
                for name, pid in [(DRIVER, process.pid), *((ACTOR, pid) for pid in actors)]:
                    found[name] = max(found[name], anonymous_bytes(pid))
            time.sleep(0.02)
        assert process.returncode == 0
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what is anonymous")
def test_memory_is_flat_from_1_000_to_10_000_images(tmp_path: Path) -> None:
    pack = write_small_pack(tmp_path / "small", train=0, test=40)
    checkpoints = [str(random_checkpoint(tmp_path, name, 0.1, 64)) for name in ("dih_nm", "gated")]
    peaks = {}
    for count in (1_000, 10_000):
        data = write_repeated_pack(pack, tmp_path / str(count), count)
        peaks[count] = peaks_of(["evaluate", *checkpoints, "--data", str(data), "--out", str(tmp_path / f"e{count}")])
    print({count: {name: f"{size / 2**20:.1f} MiB" for name, size in one.items()} for count, one in peaks.items()})
    for name in (DRIVER, ACTOR):
        assert 0 < peaks[10_000][name] < 1.1 * peaks[1_000][name], name
