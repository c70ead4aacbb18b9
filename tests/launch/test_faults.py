"""Training through Ray outlives what dies, hangs or is asked to stop, each caused for real."""

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import faulty
import psutil
import pytest
from packs import write_small_pack
from test_train import COMMON, configured, rows_of

from nrh_dist import config
from nrh_dist.engine import checkpoint, copied
from nrh_dist.engine.notice import Left
from nrh_dist.engine.rundir import is_finished
from nrh_dist.engine.storage import StorageProblem
from nrh_dist.errors import UserError
from nrh_dist.launch import session, train

DEADLINE = 300.0  # seconds that a test waits for anything


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("faults"), train=24)


def processes(word):
    """The processes of this one's Ray whose command line holds ``word``."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(word in part for part in process.cmdline()):
                found.append(process.pid)
    return found


def wait_for(condition, what):
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


@contextmanager
def meanwhile(do):
    """Call ``do`` in another thread while the block runs; its failure is the test's."""
    failed = []

    def guarded():
        try:
            do()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join()
    if failed:
        raise failed[0]


def newest_step(folder):
    path = checkpoint.newest(folder).path
    return checkpoint.read_meta(path)["step"] if path else -1


def require_whole(folder, epochs, said):
    """Every epoch once, a finished run, and nothing left that would stop another start."""
    assert [row["epoch"] for row in rows_of(folder)] == list(range(1, epochs + 1))
    assert any(line.startswith("continuing from ") for line in said)
    assert not (folder / "ray").exists() and is_finished(folder, config.load(folder / "config.yaml"))


def test_a_killed_worker_and_then_a_killed_controller(ray_session, tmp_path, pack):
    """SIGKILL of both, one after the other; the second one leaves a damaged snapshot of Ray's."""
    one = configured(tmp_path, pack, "train.epochs=60", "data.val_fraction=0.5")
    folder, said = config.run_dir(one), []

    def kill():
        wait_for(lambda: checkpoint.checkpoints(folder), "a checkpoint")
        for process in processes("RayTrainWorker"):
            os.kill(process, signal.SIGKILL)
        wait_for(lambda: any(line.startswith("continuing from ") for line in said), "another start")
        # Ray's own helper against what a dead controller leaves reserved goes first: it may fail, too.
        for process in [*processes("PlacementGroupCleaner"), *processes("TrainController")]:
            os.kill(process, signal.SIGKILL)
        (folder / "ray").mkdir(exist_ok=True)
        (folder / "ray" / "checkpoint_manager_snapshot.json").write_text('{"checkpoint_res')

    with meanwhile(kill):
        train.train(one, said.append)
    first, second = [line for line in said if "starting again" in line]
    assert first.startswith("worker 0 died") and first.endswith("without a new one: 3)")
    assert second.startswith("Ray's controller of the training died")
    require_whole(folder, 60, said)


@pytest.mark.slow
def test_a_rank_that_stands_still_is_found_and_started_again(ray_session, tmp_path, pack, monkeypatch):
    monkeypatch.setattr(train, "_worker", faulty.stands_still_once)
    one = configured(tmp_path, pack, "train.epochs=3", "scale.workers=2", "scale.hang_seconds=4")
    folder, stood = config.run_dir(one), []

    def watch():
        wait_for(lambda: (folder / "stood-still").exists(), "the standstill")
        started = time.monotonic()
        wait_for((folder / "stacks-rank1.txt").read_text, "the stacks")
        stood.append(time.monotonic() - started)

    said = []
    with meanwhile(watch):
        train.train(one, said.append)
    assert 3 < stood[0] < 12, stood
    assert "faulty.py" in (folder / "stacks-rank1.txt").read_text()
    assert any("stood still" in line for line in said) and any("worker" in line and "died" in line for line in said)
    require_whole(folder, 3, said)


@pytest.mark.slow
def test_sigterm_saves_a_checkpoint_and_stops(ray_session, tmp_path, pack):
    """The driver is a process of its own, which joins the Ray of the tests."""
    import ray

    words = ["train.epochs=30", "data.val_fraction=0.5", "train.batch_size=1"]
    address = ray.get_runtime_context().gcs_address
    folder = config.run_dir(configured(tmp_path, pack, *words))
    ended = signalled(command(tmp_path, pack, *words), folder, signal.SIGTERM, {"RAY_ADDRESS": address})
    require_stopped_at_a_checkpoint(ended, folder)
    said = []
    train.train(configured(tmp_path, pack, *words), said.append)
    require_whole(folder, 30, said)


def command(root, pack, *words):
    return [
        *(sys.executable, "-m", "nrh_dist", "train", *COMMON),
        *(f"data.pack={pack.root}", f"run.root={root}", "run.name=r", *words),
    ]


def signalled(words, folder, number, environment=None, group=False):
    """Start ``words``, send the signal in mid-epoch; what the process said, its exit code and seconds from then on."""
    pipe = subprocess.PIPE
    environment = {**os.environ, **(environment or {})}
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=environment, process_group=0) as process:
        try:
            wait_for(lambda: checkpoint.checkpoints(folder) or process.poll() is not None, "a checkpoint")
            started = time.monotonic()
            (os.killpg if group else os.kill)(process.pid, number)
            out, error = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    return SimpleNamespace(out=out, error=error, code=process.returncode, seconds=time.monotonic() - started)


def require_stopped_at_a_checkpoint(ended, folder):
    assert ended.code == 1, ended
    (line,) = ended.error.splitlines()
    step = re.search(r"nrh: stopped at step (\d+), as asked.*the same command goes on", line)
    assert step and newest_step(folder) == int(step[1])
    assert "saving a checkpoint first" in ended.out and ended.seconds < 30
    assert not (folder / "ray").exists()


class Dying:
    """A trainer that dies of ``errors``, one a fit, and then ends by itself; Ray's record must be gone each time."""

    def __init__(self, folder, errors):
        self.folder, self.errors, self.fits = folder, errors, 0

    def fit(self):
        assert not (self.folder / "ray").exists()
        self.fits += 1
        (self.folder / "ray").mkdir()
        if self.errors:
            raise self.errors.pop(0)
        return SimpleNamespace()


def dead_controller():
    from ray.exceptions import ActorDiedError

    return ActorDiedError()


def failed_workers(*raised):
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
    from ray.train.v2.api.exceptions import WorkerGroupError

    wrapped = {rank: UserExceptionWithTraceback(one, f"Traceback ...\n{one!r}") for rank, one in enumerate(raised)}
    return pickle.loads(pickle.dumps(WorkerGroupError("\n".join(map(str, wrapped.values())), wrapped)))


def failed_group():
    from ray.train.v2.api.exceptions import ControllerError

    return ControllerError(RuntimeError("Gloo connectFullMesh failed"))


def outlive(folder, errors, asked=False):
    one, said, event = config.load(None, ["scale.max_failures=2"]), [], threading.Event()
    if asked:
        event.set()
    trainer = Dying(folder, errors)
    train._outlive(lambda: trainer, one, folder, event, said.append)
    return trainer.fits, said


def test_restarts_are_counted_whatever_died(tmp_path):
    fits, said = outlive(tmp_path, [failed_group(), dead_controller()])
    assert fits == 3
    assert "Gloo connectFullMesh failed; starting again" in said[0] and "controller" in said[1]
    with pytest.raises(UserError, match=r"stopped after 2 restarts without a new checkpoint: .*FullMesh") as caught:
        outlive(tmp_path, [failed_group() for _ in range(3)])
    assert "\n" not in str(caught.value)


def test_a_start_that_reached_a_new_checkpoint_is_no_failure(tmp_path, monkeypatch):
    names = iter(["none", "a", "a", "b", "b"])
    monkeypatch.setattr(checkpoint, "newest", lambda _: checkpoint.Newest(Path(next(names)), []))
    fits, said = outlive(tmp_path, [dead_controller() for _ in range(4)])
    assert fits == 5
    assert [line.split("without a new one: ")[1] for line in said] == ["2)", "1)", "2)", "1)"]


def test_a_checkpoint_that_is_only_in_the_storage_counts_and_a_storage_that_fails_does_not(tmp_path, monkeypatch):
    """What workers on other machines reach is not on the disk of the driver."""
    looks = iter(["none", "a", StorageProblem("down"), "b", "b"])

    def reached(copy, folder):
        if isinstance(look := next(looks), StorageProblem):
            raise look
        return look

    monkeypatch.setattr(copied, "reached", reached)
    _, said = outlive(tmp_path, [dead_controller() for _ in range(4)])
    assert [line.split("without a new one: ")[1] for line in said] == ["2)", "1)", "2)", "1)"]


def test_a_users_mistake_in_a_worker_ends_the_run_without_a_restart(tmp_path):
    trainer = Dying(tmp_path, [failed_workers(RuntimeError("connection closed"), UserError("mend this"))])
    one = config.load(None, ["scale.max_failures=2"])
    with pytest.raises(UserError, match=r"^mend this$"):
        train._outlive(lambda: trainer, one, tmp_path, threading.Event(), print)
    assert trainer.fits == 1


def test_who_left_before_its_machine_goes_did_not_die(tmp_path):
    fits, said = outlive(tmp_path, [failed_workers(Left("left at step 7"), Left("left at step 7"))])
    assert fits == 2 and said[0].startswith("left at step 7; starting again")


def test_no_restart_after_being_asked_to_stop(tmp_path):
    with pytest.raises(UserError, match=r"asked to stop, and Ray's controller .* died .*: the same command goes on"):
        outlive(tmp_path, [dead_controller()], asked=True)


@pytest.mark.parametrize("damage", ["truncated", "zeroed", "flipped", "listed folder deleted"])
def test_rays_record_of_an_earlier_start_cannot_stop_another(tmp_path, damage):
    listed = tmp_path / "ray" / "checkpoint_000001"
    listed.mkdir(parents=True)
    snapshot = tmp_path / "ray" / "checkpoint_manager_snapshot.json"
    good = b'{"version": "2.60.0", "checkpoint_results": [{"checkpoint_dir_name": "checkpoint_000001"}]}'
    damaged = {"truncated": good[:30], "zeroed": bytes(len(good)), "flipped": bytes([good[0] ^ 1]) + good[1:]}
    snapshot.write_bytes(damaged.get(damage, good))
    if damage not in damaged:
        listed.rmdir()
    assert outlive(tmp_path, []) == (1, [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_old_handlers_come_back(number):
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    times, said = [], []
    with session.stopping(lambda: times.append(1), said.append) as asked:
        assert not asked.is_set()
        os.kill(os.getpid(), number)
        wait_for(lambda: said, "what the user reads")
        assert times == [1]
        assert asked.is_set() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert len(said) == 1 and "checkpoint" in said[0]
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
    with session.stopping(lambda: None, said.append) as asked:
        pass
    assert not asked.is_set()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 1)])
def test_a_second_signal_ends_at_once(number, code):
    """A block that never heeds what it is asked."""
    script = (
        "import sys, time\nfrom nrh_dist.launch.session import stopping\n"
        "try:\n    with stopping(lambda: None, lambda line: print(line, flush=True)):\n"
        "        print('up', flush=True)\n        time.sleep(100)\n"
        "except KeyboardInterrupt:\n    sys.exit(1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert "again to stop at once" in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(timeout=30) == code
