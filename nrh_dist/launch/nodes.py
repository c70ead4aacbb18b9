"""What each machine of a cluster says of itself, asked by a task on each of them."""

import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from nrh_dist.engine.provenance import source_digest
from nrh_dist.engine.storage import open_storage
from nrh_dist.errors import UserError
from nrh_dist.launch.session import token_is_private

LIBRARIES = ("nrh_dist", "ray", "torch", "torchvision", "numpy")
ANSWER_S = 60.0  # a first worker on a busy machine takes seconds
LOOPBACK = ("127.", "::1")


class Node(NamedTuple):
    """A machine: its address in the cluster, what Ray counts on it, and its ``facts``, or why it told none.

    ``clock_s`` is how far its clock is ahead of this machine's, known to ± ``clock_known_to_s``.
    """

    address: str
    is_head: bool
    resources: dict[str, float]
    facts: dict[str, Any]
    fault: str = ""
    clock_s: float = 0.0
    clock_known_to_s: float = 0.0


def ask_all(storage: str) -> list[Node]:
    """All living nodes of the Ray that this process has joined, the head first.

    Each reads and writes in ``storage``, where one is given.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [one for one in ray.nodes() if one["Alive"]]
    alive.sort(key=lambda one: "node:__internal_head__" not in one["Resources"])

    def on(node: dict[str, Any], function: Callable[..., Any], *arguments: Any) -> Any:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": here}
        return ray.remote(function).options(**options).remote(*arguments)

    with marked(storage) as (mark, fault):
        asked = [on(node, facts, node["NodeManagerAddress"], storage, mark, fault) for node in alive]
        ray.wait(asked, num_returns=len(asked), timeout=ANSWER_S)  # all at once; what is late is late below
    return [_node(node, told, on) for node, told in zip(alive, asked, strict=True)]


@contextmanager
def marked(storage: str) -> Iterator[tuple[str, str]]:
    """The name of a file in ``storage`` while it is there ("": no storage is given), and why it cannot be written."""
    mark, fault = f".nrh-doctor-{uuid4().hex}" if storage else "", ""
    try:
        if mark:
            open_storage(storage).put(mark.encode(), mark)
    except (UserError, OSError) as error:
        fault = str(error)
    try:
        yield mark, fault
    finally:
        if mark and not fault:
            open_storage(storage).remove(mark)


def _node(node: dict[str, Any], told: Any, on: Callable[..., Any]) -> Node:
    import ray

    address = node["NodeManagerAddress"]
    known = (address, "node:__internal_head__" in node["Resources"], node["Resources"])
    try:
        found = ray.get(told, timeout=1)
        before = time.time()
        there = ray.get(on(node, _now), timeout=ANSWER_S)  # its worker is there now: a matter of milliseconds
        after = time.time()
    except ray.exceptions.GetTimeoutError:
        return Node(*known, {}, f"gave no answer within {ANSWER_S:g} s")
    except Exception as error:  # a worker without this package, without Python, without memory ...
        return Node(*known, {}, str(error).strip().splitlines()[-1])
    return Node(*known, found, "", there - (before + after) / 2, (after - before) / 2)


def _now() -> float:
    return time.time()


def facts(address: str, storage: str, mark: str, fault: str) -> dict[str, Any]:
    """Of the machine that this runs on, whose address in the cluster is ``address``.

    ``mark`` is the name of a file that it should see in ``storage`` ("": no storage is given), ``fault`` why it is not
    there.
    """
    return {
        "versions": dict(_versions()),
        "code": source_digest(),
        "gpus": gpus(),
        "storage": fault or (mark and not_seen(storage, mark)),
        "token_is_private": token_is_private(),
        "open_to_the_network": open_to_the_network(),
        "interface": interface_of(address),
        "chosen_interface": os.environ.get("GLOO_SOCKET_IFNAME", ""),
        "own_name_is": address_of_own_name(),
        "free_gb": shutil.disk_usage(Path.home()).free / 1e9,
    }


def not_seen(storage: str, mark: str) -> str:
    """Why this machine cannot read ``mark`` in ``storage`` and write there; "" where it can."""
    own = f"{mark}-{uuid4().hex}"
    try:
        place = open_storage(storage)
        if place.read(mark) is None:
            return f"{storage} is another folder there than on the machine of this command"
        place.put(own.encode(), own)
        place.remove(own)
    except UserError as error:
        return str(error)
    return ""


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    for name in LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "missing"


def gpus() -> list[str]:
    """The name of each GPU, as its driver says, whatever this process is allowed to see."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    return done.stdout.splitlines() if done.returncode == 0 else []


def open_to_the_network() -> list[str]:
    """ADDRESS:PORT of each port beyond loopback on which a process of Ray listens."""
    import psutil

    found = set()
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if not any("ray" in Path(word).parts or word.startswith("ray::") for word in words[:2]):
                continue
            for one in process.net_connections(kind="tcp"):
                if one.status == psutil.CONN_LISTEN and not one.laddr.ip.startswith(LOOPBACK):
                    found.add(f"{one.laddr.ip}:{one.laddr.port}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return sorted(found)


def interface_of(address: str) -> str:
    """The network interface that has ``address``; "" where none has."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            return name
    return ""


def address_of_own_name() -> str:
    """What this machine's own name resolves to, which gloo and NCCL go by; "" where it does not."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""


def asks_for_a_token() -> bool:
    """Whether the head of the Ray that this process has joined refuses who comes without a token."""
    import grpc
    import ray

    with grpc.insecure_channel(ray.get_runtime_context().gcs_address) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            ask(b"", timeout=10)
        except grpc.RpcError as error:
            return error.code() == grpc.StatusCode.UNAUTHENTICATED
    return False
