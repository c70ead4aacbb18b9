"""``nrh doctor``: what is here, what is wrong, and what to do about it."""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from nrh_dist.engine.progress import Say
from nrh_dist.engine.storage import open_storage
from nrh_dist.launch.nodes import marked, open_to_the_network
from nrh_dist.launch.session import token_is_private, token_path, unreachable
from nrh_dist.location import parse
from nrh_dist.schema import Config

RAY_SERIES = "2.60"
FREE_GB = 5.0


class Finding(NamedTuple):
    """One line of the doctor; a note is about something that is missing but optional, or off by choice."""

    level: Literal["ok", "note", "problem"]
    text: str


def examine(say: Say, storage: str = "") -> bool:
    """Say one line for each thing that matters; whether no problem was found. ``storage``, where given, is tried."""
    checks = (_python, _torch, _ray, _token, _weights, _disks, partial(_storage, storage), _tracking)
    return tell((one for check in checks for one in check()), say)


def tell(findings: Iterable[Finding], say: Say) -> bool:
    """Say them as they come; whether none is a problem."""
    healthy = True
    for finding in findings:
        say(f"{finding.level:8}{finding.text}")
        healthy &= finding.level != "problem"
    return healthy


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", f"Python {version}, {os.cpu_count()} CPUs, nrh_dist {importlib.metadata.version('nrh_dist')}")


def _torch() -> Iterator[Finding]:
    import torch

    yield Finding("ok", f"torch {torch.__version__}")
    try:
        import torchvision

        yield Finding("ok", f"torchvision {torchvision.__version__}")
    except (ImportError, RuntimeError) as error:
        yield Finding("problem", f"torchvision does not load ({error}): it must match torch; run make setup again")
    if not torch.cuda.is_available():
        yield Finding("note", "no GPU: training runs on the CPU; use preset=tiny")
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        yield Finding("ok", f"GPU {number}: {name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")


def _ray() -> Iterator[Finding]:
    version = importlib.metadata.version("ray")
    fits = version.startswith(RAY_SERIES)
    yield Finding(
        "ok" if fits else "problem", f"Ray {version}" + ("" if fits else f": {RAY_SERIES} is needed; run make setup")
    )
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        yield Finding("ok", "RAY_ADDRESS is not set: each command starts a Ray of its own on this machine")
        return
    if reason := unreachable(address):
        yield Finding("problem", f"RAY_ADDRESS={address} does not answer ({reason}): start the cluster, or unset it")
    else:
        yield Finding("ok", f"RAY_ADDRESS={address}: commands join that cluster")


def _token() -> Iterator[Finding]:
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode != "token":
        ports = open_to_the_network()
        where = f", and Ray listens at {ports[0]}" if ports else ""
        rule = f"RAY_AUTH_MODE={mode}{where}: whoever reaches Ray's ports can run code; unset it outside of tests"
        yield Finding("problem" if ports else "note", rule)
    token, private = token_path(), token_is_private()
    if private is None:
        yield Finding("ok", f"no Ray token at {token} yet: the first local start makes one")
    elif private:
        yield Finding("ok", f"Ray's token {token} is private")
    else:
        yield Finding("problem", f"Ray's token {token} can be read by others: chmod 600 {token}")


def _weights() -> Iterator[Finding]:
    from nrh_dist import perceptual
    from nrh_dist.engine.assemble import vgg_path

    reason = perceptual.missing()
    yield Finding("note", reason) if reason else Finding("ok", f"LPIPS backbone at {perceptual.weights_path()}")
    vgg = vgg_path()
    if vgg.exists():
        yield Finding("ok", f"VGG16 weights at {vgg}")
    else:
        yield Finding("note", f"no VGG16 weights at {vgg}: a new detector starts from random weights")


def _storage(storage: str) -> Iterator[Finding]:
    if not storage:
        return
    parse(storage, "--storage")
    with marked(storage) as (mark, fault):
        fault = fault or ("" if open_storage(storage).read(mark) else "what was written is not there")
    if fault:
        yield Finding("problem", f"the storage {storage}: {fault}")
    else:
        yield Finding("ok", f"this machine reads and writes {storage}")


def _disks() -> Iterator[Finding]:
    from nrh_dist.location import cache_dir

    cache = cache_dir()
    used = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) / 1e9
    yield Finding("ok", f"cache of packed data and compiled code: {cache}, {used:.2f} GB; to clear it: rm -r {cache}")
    for place, what in ((cache, "the cache"), (Path.cwd(), "this folder")):
        there = next(path for path in (place, *place.parents) if path.exists())
        free = shutil.disk_usage(there).free / 1e9
        if free < FREE_GB:
            yield Finding("problem", f"{free:.1f} GB are free for {what} ({place}), {FREE_GB:g} are wanted: make room")
        elif not os.access(there, os.W_OK):
            yield Finding("problem", f"{what} ({place}) is not writable: set NRH_CACHE, or change to another folder")
        else:
            yield Finding("ok", f"{free:.0f} GB are free for {what}")


def _tracking() -> Iterator[Finding]:
    from nrh_dist.engine.track import wandb_mode

    mode = wandb_mode(Config())
    ways = {
        "offline": "W&B runs are kept on the disk (offline); wandb login and track.wandb=online send them",
        "online": "W&B runs are sent (online)",
    }
    yield Finding("ok", ways.get(mode, f"W&B is {mode}"))
