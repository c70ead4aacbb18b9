import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

import pytest

from nrh_dist.engine.storage import open_storage
from nrh_dist.launch import nodes
from nrh_dist.launch.nodes import Node
from nrh_dist.workflows.doctor_cluster import examine, judge

FINE = {
    "versions": {"python": "3.12.1", "ray": "2.60.0"},
    "code": "abc",
    "gpus": ["NVIDIA A10G, 23028 MiB, 580.1"],
    "storage": "",
    "token_is_private": True,
    "open_to_the_network": ["10.0.0.1:6379"],
    "interface": "eth0",
    "chosen_interface": "",
    "own_name_is": "10.0.0.1",
    "free_gb": 80.0,
}


def node(address="10.0.0.2", is_head=False, fault="", clock_s=0.0, **facts):
    return Node(address, is_head, {"GPU": 1.0}, {} if fault else {**FINE, **facts}, fault, clock_s, 0.01)


def problems(*others, asks=True, storage="s3://bucket/nrh"):
    found = judge([node("10.0.0.1", True), *others], asks, storage)
    return [one.text for one in found if one.level == "problem"]


def test_a_healthy_cluster_has_no_problem():
    found = [*judge([node("10.0.0.1", True), node()], True, "s3://bucket/nrh")]
    assert {one.level for one in found} == {"ok"}
    text = "\n".join(one.text for one in found)
    for words in ("2 machine(s)", "ray 2.60.0", "2 GPU(s): NVIDIA A10G", "all read and write s3://bucket/nrh", "token"):
        assert words in text


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"fault": "gave no answer within 60 s"}, "10.0.0.2 does not answer (gave no answer within 60 s)"),
        ({"versions": {"python": "3.12.1", "ray": "2.59.0"}}, "10.0.0.2 has ray 2.59.0 (head: 2.60.0)"),
        ({"code": "other"}, "10.0.0.2 has other code of nrh_dist"),
        ({"gpus": []}, "Ray counts 1 GPU(s) and nvidia-smi shows 0"),
        ({"storage": "/data is another folder there"}, "mount it there, or give an s3://"),
        ({"free_gb": 1.0}, "1.0 GB are free at home"),
        ({"clock_s": -400.0}, "its clock is -400 s off"),
        ({"own_name_is": "127.0.1.1"}, "export GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0"),
        ({"own_name_is": ""}, "its own name means nothing"),
        ({"token_is_private": False}, "chmod 600"),
    ],
)
def test_what_is_wrong_with_one_machine_is_said_of_that_one(wrong, words):
    (text,) = problems(node(**wrong))
    assert "10.0.0.2" in text and words in text


def test_no_token_and_an_open_port_is_a_problem_and_loopback_alone_is_not():
    (text,) = problems(asks=False)
    assert "any peer can run code" in text and "10.0.0.1:6379" in text and "RAY_AUTH_MODE=token" in text
    alone = node("127.0.0.1", True, open_to_the_network=[])
    assert "problem" not in {one.level for one in judge([alone], False, "")}


def test_a_chosen_interface_and_a_name_of_loopback_are_fine():
    assert problems(node(own_name_is="127.0.1.1", chosen_interface="eth0")) == []


def test_a_machine_that_sees_another_folder(tmp_path):
    (tmp_path / "mark").write_text("")
    assert nodes.not_seen(str(tmp_path), "mark") == ""
    assert [path.name for path in tmp_path.iterdir()] == ["mark"]
    assert "is another folder there" in nodes.not_seen(str(tmp_path / "elsewhere"), "mark")


def test_a_storage_that_can_only_be_read(s3):
    open_storage(s3.address).put(b"", "mark")
    assert nodes.not_seen(s3.address, "mark") == ""
    s3.close()
    assert "fails" in nodes.not_seen(s3.address, "mark")


def test_the_machine_of_a_local_ray(ray_session, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    said = []
    examine("auto", str(tmp_path), said.append)
    text = "\n".join(said)
    assert "1 machine(s)" in text and f"all read and write {tmp_path}" in text and "the same code on all" in text
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def started():
    """A function that starts a Ray by itself, as a user would, with or without the token; returns its address."""
    running, home = [], Path(mkdtemp(prefix="nrh-"))

    def start(mode):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = {**os.environ, "HOME": str(home), "RAY_AUTH_MODE": mode, "RAY_TMPDIR": str(home)}
        if mode == "token":
            (home / "token").write_text("0" * 64)
            (home / "token").chmod(0o600)
            environment["RAY_AUTH_TOKEN_PATH"] = str(home / "token")
        ray = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        words = ["--include-dashboard=false", "--num-cpus=1", "--disable-usage-stats"]
        running.append(subprocess.Popen([*ray, *words], env=environment, start_new_session=True, **quiet))
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    return f"127.0.0.1:{port}", environment
            time.sleep(0.5)
        raise TimeoutError("Ray did not start")

    yield start
    for one in running:
        os.killpg(one.pid, signal.SIGTERM)
        one.wait(60)


def doctor(address, environment, *words):
    command = [sys.executable, "-m", "nrh_dist", "doctor", "--cluster", address, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_a_ray_of_its_own_with_and_without_the_token(started, mode, tmp_path):
    address, environment = started(mode)
    done = doctor(address, environment, "--storage", str(tmp_path))
    lost = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    if mode == "token":
        assert "ok      Ray refuses who comes without the token" in done.stdout, done.stdout + done.stderr
        assert not any("token" in line for line in lost)
    else:
        assert done.returncode == 1
        assert any("Ray asks nobody for a token" in line and "any peer can run code" in line for line in lost)


def test_nobody_answers(monkeypatch):
    done = doctor("127.0.0.1:1", {**os.environ})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "127.0.0.1:1 does not answer" in done.stderr
