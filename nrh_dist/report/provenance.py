"""``provenance.json``: how an evaluation came to be and what it cost. Optional: older evaluations have none."""

from typing import Any

import msgspec


class Training(msgspec.Struct):
    """What the training of a run took, from its ``metrics.jsonl``."""

    hours: float | None = None
    workers: int | None = None
    device_hours: float | None = None
    device: str = ""


class Provenance(msgspec.Struct):
    """The command, where it ran and how long; ``training`` by run. ``commit`` is None outside a git checkout."""

    command: str
    version: str = ""
    commit: str | None = None
    started: str = ""
    seconds: float | None = None
    images: int | None = None
    images_per_s: float | None = None
    actors: int | None = None
    device: str = ""
    gpus: float | None = None
    gpu_hours: float | None = None
    cpu_hours: float | None = None
    environment: dict[str, Any] = {}
    training: dict[str, Training] = {}
