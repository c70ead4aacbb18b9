"""Several ranks of one process group on this machine, without Ray."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from nrh_dist.engine.dist import Place


def run_ranks(function: Callable[..., Any], world: int, folder: Path, *arguments: Any) -> list[Any]:
    """``function(place, *arguments)`` on each of ``world`` gloo ranks; the results by rank."""
    folder.mkdir(parents=True, exist_ok=True)
    multiprocessing.spawn(_rank, (function, world, folder, arguments), nprocs=world)
    return [torch.load(folder / f"result-{rank}.pt", weights_only=False) for rank in range(world)]


def _rank(rank: int, function: Callable[..., Any], world: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.save(function(Place(rank, world), *arguments), folder / f"result-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads now and then abort an ordinary end of the interpreter
