import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import mkdtemp

import psutil
import pytest

from nrh_dist.errors import UserError
from nrh_dist.launch import session


def test_lines_of_a_log_are_repeated_as_they_come(tmp_path):
    log = tmp_path / "sub" / "train.log"
    log.parent.mkdir()
    log.write_text("old\n")
    said = []
    with session.followed(log, said.append):
        with log.open("a") as file:
            file.write("one\n")
        deadline = time.monotonic() + 10
        while said != ["one"] and time.monotonic() < deadline:
            time.sleep(0.02)
        assert said == ["one"]
        with log.open("a") as file:
            file.write("two\nthree\n")
    assert said == ["one", "two", "three"]
    assert not [thread for thread in threading.enumerate() if "_follow" in thread.name]


def test_the_token_is_made_private(tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("x")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    session.tighten_token()
    assert token.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("address", ["", "10.0.0.1:6379"])
def test_a_local_ray_refuses_what_a_cluster_waits_for(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(session, "resources", lambda: {"CPU": 2.0})
    said = []
    session.require(2, 0, "two workers", said.append)
    assert said == []
    if address:
        session.require(3, 1, "three workers", said.append)
        assert said == [
            "three workers need 3 CPUs and this Ray has 2: waiting for the cluster to grow",
            "three workers need 1 GPUs and this Ray has 0: waiting for the cluster to grow",
        ]
    else:
        with pytest.raises(UserError, match="three workers need 3 CPUs and this Ray has 2: ask for fewer"):
            session.require(3, 1, "three workers", said.append)


def test_a_ray_that_does_not_start_is_one_line(monkeypatch):
    import ray

    def init(**_):
        raise Exception("The current node timed out during startup.\nThis could happen because ...")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match=r"does not start .*timed out during startup\. This .*same command again"):
        session.connect(lambda _: None)


OPEN = """\
import os
import ray
from nrh_dist.launch import nodes, session
session.connect(print)
assert ray.get(ray.remote(lambda: 1 + 1).remote()) == 2
print("asks" if nodes.asks_for_a_token() else "open", os.environ["RAY_AUTH_MODE"])
"""


def test_a_ray_of_our_own_asks_for_its_token():
    """Whatever Ray's default is, and whether or not there was a token."""
    home = Path(mkdtemp(prefix="nrh-"))  # short, because Ray puts sockets below it
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment = {**kept, "HOME": str(home), "RAY_TMPDIR": str(home)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", OPEN], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "asks token"
        assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    finally:
        shutil.rmtree(home)


def test_a_worker_that_hangs_in_its_end_does_not_outlive_us():
    """Its end hangs where Ray's does: in what runs when its process exits."""
    code = """
from nrh_dist.launch import session
session.connect(lambda _: None)
import ray

@ray.remote(num_cpus=0)
class Hanging:
    def leave(self):
        import atexit, os, time
        atexit.register(time.sleep, 600)
        return os.getpid()

actor = Hanging.remote()
print(ray.get(actor.leave.remote()), flush=True)
actor.__ray_terminate__.remote()
import time
time.sleep(1)
"""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    pid = int(done.stdout)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_only_what_dead_actors_reserved_is_given_back(ray_session):
    """What the driver reserved is in use: each of Tune's trials lives in such a group."""
    import ray
    from ray.util.placement_group import placement_group, placement_group_table

    @ray.remote(num_cpus=0)
    class Reserving:
        def reserve(self):
            return placement_group([{"CPU": 0.01}]).id.hex()

    own = placement_group([{"CPU": 0.01}])
    actors = [Reserving.remote() for _ in range(2)]
    dead, alive = ray.get([one.reserve.remote() for one in actors])
    ray.kill(actors[0])

    def wait_until_removed(group):
        deadline = time.monotonic() + 20
        while placement_group_table()[group]["state"] != "REMOVED":
            assert time.monotonic() < deadline
            session.free_orphans()
            time.sleep(0.1)

    wait_until_removed(dead)
    assert "REMOVED" not in [placement_group_table()[one]["state"] for one in (own.id.hex(), alive)]
    ray.kill(actors[1])
    wait_until_removed(alive)
    ray.util.remove_placement_group(own)
