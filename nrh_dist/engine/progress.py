"""How far a long job is: one plain line every few seconds."""

import time
from collections.abc import Callable

Say = Callable[[str], None]


class Progress:
    """Counts images and says, every ``interval`` seconds, the share done, images/s and the time left."""

    def __init__(self, total: int, say: Say, interval: float = 5.0) -> None:
        self._total, self._say, self._interval = max(total, 1), say, interval
        self._done = 0
        self._started = self._spoken = time.monotonic()

    def add(self, images: int, text: str) -> None:
        """Note ``images`` more; ``text`` opens the line if it is time for one."""
        self._done += images
        now = time.monotonic()
        if now - self._spoken >= self._interval:
            self._spoken = now
            rate = self._done / (now - self._started)
            done = min(self._done, self._total)
            left = duration((self._total - done) / rate)
            self._say(f"{text}: {100 * done / self._total:.0f} %, {rate:.1f} images/s, {left} left")


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
