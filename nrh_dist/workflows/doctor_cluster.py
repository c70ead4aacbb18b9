"""``nrh doctor --cluster``: do all machines of a cluster fit together, and is it safe to leave on a network?"""

import os
from collections.abc import Iterator, Sequence

from nrh_dist.engine.progress import Say
from nrh_dist.launch import nodes, session
from nrh_dist.launch.nodes import LOOPBACK, Node
from nrh_dist.location import parse
from nrh_dist.workflows.doctor import FREE_GB, Finding, tell

CLOCK_S = 5.0  # object stores refuse requests at 15 minutes, but logs and locks are read by people long before


def examine(address: str, storage: str, say: Say) -> bool:
    """Say one line for each thing that matters about the cluster at ``address``; whether no problem was found.

    Each machine must see ``storage``, where one is given. ``UserError``: nobody answers at ``address``.
    """
    if storage:
        parse(storage, "--storage")
    os.environ["RAY_ADDRESS"] = address
    session.connect(say)
    return tell(judge(nodes.ask_all(storage), nodes.asks_for_a_token(), storage), say)


def judge(found: Sequence[Node], asks_for_a_token: bool, storage: str) -> Iterator[Finding]:
    """What is wrong with these machines, the head first, and what to do about it; else what is right."""
    yield from _answers(found)
    there = [node for node in found if not node.fault]
    if there:
        yield from _same_code(there)
        yield from _gpus(there)
        yield from _storage(there, storage)
        yield from _disks(there)
        yield from _clocks(there)
        yield from _network(there)
        yield from _safety(there, asks_for_a_token)


def _answers(found: Sequence[Node]) -> Iterator[Finding]:
    for node in found:
        if node.fault:
            do = "is the package installed there, as the cluster file's setup_commands do it?"
            yield Finding("problem", f"{node.address} does not answer ({node.fault}): {do}")
    workers = len(found) - 1
    yield Finding("ok", f"{len(found)} machine(s): a head and {workers} worker(s)")


def _same_code(there: Sequence[Node]) -> Iterator[Finding]:
    head, *others = there
    for node in others:
        mine, its = head.facts["versions"], node.facts["versions"]
        different = [f"{name} {its[name]} (head: {mine[name]})" for name in mine if its[name] != mine[name]]
        if different:
            yield Finding("problem", f"{node.address} has {', '.join(different)}: install the lock there")
        elif node.facts["code"] != head.facts["code"]:
            yield Finding("problem", f"{node.address} has other code of nrh_dist: ray up again, which copies it")
    if len({(str(node.facts["versions"]), node.facts["code"]) for node in there}) == 1:
        yield Finding("ok", "the same code on all: " + ", ".join(f"{k} {v}" for k, v in head.facts["versions"].items()))


def _gpus(there: Sequence[Node]) -> Iterator[Finding]:
    for node in there:
        has, counted = len(node.facts["gpus"]), int(node.resources.get("GPU", 0))
        if counted > has:
            do = "its driver does not answer: nvidia-smi there says why"
            yield Finding("problem", f"{node.address}: Ray counts {counted} GPU(s) and nvidia-smi shows {has}: {do}")
        elif counted < has:
            yield Finding("note", f"{node.address} has {has} GPU(s) and Ray uses {counted}: as its file says?")
    kinds = sorted({gpu.partition(",")[0] for node in there for gpu in node.facts["gpus"]})
    count = sum(len(node.facts["gpus"]) for node in there)
    if count:
        yield Finding("ok", f"{count} GPU(s): {', '.join(kinds)}")
    else:
        yield Finding("note", "no GPU yet: an autoscaling cluster starts them with the first work")


def _storage(there: Sequence[Node], storage: str) -> Iterator[Finding]:
    blind = [node for node in there if node.facts["storage"]]
    do = "mount it there, or give an s3:// or gs:// storage and its keys"
    for node in blind:
        yield Finding("problem", f"{node.address}: {node.facts['storage']}: {do}")
    if not storage:
        yield Finding("note", "no storage is given: --storage, or NRH_STORAGE, has every machine try it")
    elif not blind:
        yield Finding("ok", f"all read and write {storage}")


def _disks(there: Sequence[Node]) -> Iterator[Finding]:
    for node in there:
        if node.facts["free_gb"] < FREE_GB:
            yield Finding("problem", f"{node.address}: {node.facts['free_gb']:.1f} GB are free at home: make room")


def _clocks(there: Sequence[Node]) -> Iterator[Finding]:
    wrong = [node for node in there if abs(node.clock_s) - node.clock_known_to_s > CLOCK_S]
    for node in wrong:
        yield Finding("problem", f"{node.address}: its clock is {node.clock_s:+.0f} s off: start an NTP client there")
    if not wrong:
        yield Finding("ok", f"all clocks agree to {CLOCK_S:g} s")


def _network(there: Sequence[Node]) -> Iterator[Finding]:
    if len(there) == 1:
        return
    lost = [node for node in there if not node.facts["chosen_interface"] and _is_loopback(node.facts["own_name_is"])]
    for node in lost:
        own, interface = node.facts["own_name_is"] or "nothing", node.facts["interface"]
        do = f"export GLOO_SOCKET_IFNAME={interface} NCCL_SOCKET_IFNAME={interface} there before ray start"
        yield Finding("problem", f"{node.address}: its own name means {own}, where no other reaches it: {do}")
    if not lost:
        yield Finding("ok", "workers reach each other: each machine's name means its own address")


def _is_loopback(address: str) -> bool:
    return not address or address.startswith(LOOPBACK)


def _safety(there: Sequence[Node], asks_for_a_token: bool) -> Iterator[Finding]:
    ports = [f"{node.address} listens at {', '.join(bound)}" for node in there if (bound := _shown(node))]
    if asks_for_a_token:
        yield Finding("ok", "Ray refuses who comes without the token")
    elif ports:
        do = "set RAY_AUTH_MODE=token before every ray start"
        yield Finding("problem", f"Ray asks nobody for a token, and {'; '.join(ports)}: any peer can run code; {do}")
    else:
        yield Finding(
            "note", "Ray asks nobody for a token, and listens on loopback alone: fine on a machine of your own"
        )
    for node in there:
        if node.facts["token_is_private"] is False:
            yield Finding("problem", f"{node.address}: others can read Ray's token there: chmod 600 ~/.ray/auth_token")


def _shown(node: Node) -> list[str]:
    ports = node.facts["open_to_the_network"]
    return [*ports[:3], f"and {len(ports) - 3} more"] if len(ports) > 3 else ports
