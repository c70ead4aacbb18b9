"""Ray started or joined: one local Ray for this process, or the cluster that RAY_ADDRESS names."""

import atexit
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread
from types import FrameType
from typing import Any, TypeVar

from nrh_dist.engine.notice import Left, restored
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError

Raised = TypeVar("Raised", bound=Exception)

# Ray polls its workers for reports every 2 s by default, and a second report blocks the loop until the first is polled
# (``polling`` makes it rarer where epochs take longer); and it would run them at niceness 15, behind its own helpers.
_ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "120",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
}
# Of a Ray of one's own: who comes without its token is refused, nobody announces the end of this machine to it, nobody
# asks it for the history of tasks or for metrics, and where its head is gone, it will not come back.
_LOCAL = {
    "RAY_AUTH_MODE": "token",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
}
LEAVING_SECONDS = 3.0  # that workers have to end by themselves


def connect(say: Say) -> None:
    """Join the cluster of RAY_ADDRESS, or start a local Ray on loopback; does nothing when already connected.

    A local Ray has no dashboard: it takes some per cent of two cores. What Ray's own clean-up asks it for, see
    ``free_orphans``. ``UserError`` if the address does not answer.
    """
    import ray
    from ray._raylet import Config  # type: ignore[attr-defined]

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    for key, value in (_ENVIRONMENT if address else _ENVIRONMENT | _LOCAL).items():
        os.environ.setdefault(key, value)
    Config.initialize("")  # Ray's import has read the environment as it was; else nobody makes the token
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        # A second Ray on the same machine confuses Ray's own helpers unless every process knows its address.
        options |= {"address": address, "runtime_env": {"env_vars": {"RAY_ADDRESS": address, **_ENVIRONMENT}}}
    else:
        # "local": without an address, Ray would join whatever cluster was last started on this machine.
        options |= {"address": "local", "include_dashboard": False}
    if address and (reason := unreachable(address)):
        raise _no_ray(address, reason)
    say(f"connecting to Ray at {address}" if address else "starting Ray on this machine")
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises plain ones, too, as on a machine that is too busy to start it in time
        raise _no_ray(address, " ".join(str(error).split())) from None
    if not address:
        atexit.register(_leave)  # runs before Ray's own
    tighten_token()


def _leave() -> None:
    """End the local Ray, and those of its workers that hang in their own end, as controllers of Ray Train may."""
    import psutil
    import ray

    workers = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, IndexError):
            if process.cmdline()[0].startswith("ray::"):
                workers.append(process)
    ray.shutdown()
    for process in psutil.wait_procs(workers, timeout=LEAVING_SECONDS)[1]:
        with suppress(psutil.Error):
            process.kill()


def _no_ray(address: str | None, reason: str) -> UserError:
    if address:
        return UserError(f"RAY_ADDRESS={address} does not answer ({reason}): start the cluster, or unset it")
    return UserError(f"Ray does not start on this machine ({reason}): give the same command again")


def unreachable(address: str) -> str | None:
    """Why nothing answers at ``address``, or None. Ray itself would try for minutes; "auto" is left to it."""
    if address in ("auto", "local"):
        return None
    host, _, port = address.removeprefix("ray://").partition(":")
    try:
        socket.create_connection((host, int(port or 6379)), timeout=5).close()
    except (OSError, ValueError) as error:
        return str(error)
    return None


def tighten_token() -> None:
    """Make Ray's token file readable by its owner only: Ray creates it with mode 0644."""
    token = token_path()
    if token.exists() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


def token_is_private() -> bool | None:
    """Whether only its owner can read Ray's token; None where there is none."""
    token = token_path()
    return not stat.S_IMODE(token.stat().st_mode) & 0o077 if token.exists() else None


def token_path() -> Path:
    """Where Ray looks for its token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))


def is_local() -> bool:
    """Whether this process started its own Ray, whose size is fixed."""
    return not os.environ.get("RAY_ADDRESS")


def resources() -> dict[str, float]:
    """What Ray has in all: CPU, GPU, memory ... Before it is started here, at most what this machine has."""
    import ray

    if ray.is_initialized():
        while not (found := ray.cluster_resources()):  # on a busy machine a new Ray does not know its own node yet
            time.sleep(0.1)
        return found
    import torch

    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}


def one_machine_has(cpus: float, gpus: float) -> bool:
    """Whether a single machine of this Ray has so much, in use or not."""
    import ray

    machines = [one["Resources"] for one in ray.nodes() if one["Alive"]] if ray.is_initialized() else [resources()]
    return any(one.get("CPU", 0) >= cpus and one.get("GPU", 0) >= gpus for one in machines)


def require(cpus: float, gpus: float, what: str, say: Say) -> None:
    """Refuse what a local Ray can never give; say that a cluster has to grow first."""
    have = resources()
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        there = have.get(name, 0)
        if wanted > there:
            text = f"{what} need {wanted:g} {name}s and this Ray has {there:g}"
            if is_local():
                raise UserError(f"{text}: ask for fewer, or set RAY_ADDRESS to a cluster")
            say(f"{text}: waiting for the cluster to grow")


def cause(error: Exception) -> str:
    """What died, and of what, in one line: the last line of a Ray error is that which a worker raised."""
    from ray.train.v2.api.exceptions import WorkerGroupError

    reason = str(error).strip().splitlines()[-1].partition(" Some common causes")[0].strip()
    if isinstance(error, WorkerGroupError):
        ranks = ", ".join(map(str, sorted(error.worker_failures)))
        left = raised(error, Left)
        return str(left) if left else f"worker {ranks} died ({reason})"
    return reason


def raised(error: Exception, kind: type[Raised]) -> Raised | None:
    """What of ``kind`` a worker of a training raised, where that is what ended it."""
    failures = getattr(error, "worker_failures", {}).values()
    found = (getattr(one, "_base_exc", one) for one in failures)  # Ray wraps it, with its traceback
    return next((one for one in found if isinstance(one, kind)), None)


def free_orphans() -> None:
    """Give back what this job reserved through actors that are dead now.

    Ray leaves it to a helper that knows nothing of workers still on their way up, may die itself, and gives up where
    two Rays run on one machine; what stays reserved would keep the next start waiting for ever.
    """
    import ray
    from ray._private.state import state
    from ray.core.generated import gcs_pb2
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = ray.get_runtime_context().get_job_id()
    for line in state._connect_and_get_accessor().get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(line)  # type: ignore[attr-defined]
        is_of_actor = not ray.ActorID(group.creator_actor_id).is_nil()  # else a driver's, as those of Tune's trials
        if is_of_actor and group.creator_actor_dead and group.creator_job_id.hex() == job:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))


@contextmanager
def stopping(ask: Callable[[], None], say: Say) -> Iterator[Event]:
    """While the block runs, SIGTERM and Ctrl-C call ``ask``; a second signal ends the process at once.

    Yields the event of having been asked. Outside the main thread signals stay as they are.
    """
    asked = Event()
    if current_thread() is not main_thread():
        yield asked
        return

    def handle(number: int, _: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        asked.set()
        ask()
        # In a thread: the main one may be in the midst of printing.
        Thread(target=say, args=("asked to stop: saving a checkpoint first; ask again to stop at once",)).start()

    with restored(signal.SIGTERM, signal.SIGINT):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)
        yield asked


@contextmanager
def followed(log: Path, say: Say) -> Iterator[None]:
    """Repeat the lines that workers append to ``log`` while the block runs, and those that it leaves at its end."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    stop = Event()
    thread = Thread(target=_follow, args=(log, log.stat().st_size, say, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(log: Path, position: int, say: Say, stop: Event) -> None:
    with log.open() as file:
        file.seek(position)
        while True:
            ending = stop.is_set()  # read once more after the end: the last lines may still be unread
            while line := file.readline():
                say(line.rstrip("\n"))
            if ending:
                return
            time.sleep(0.1)
