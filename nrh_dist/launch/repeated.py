"""Something that is done again and again beside the work, in a thread of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def repeated(look: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call ``look`` every ``seconds`` while the block runs, never twice at once; when it ends, no call is under way."""
    ended = Event()

    def go_on() -> None:
        while not ended.wait(seconds):
            look()

    thread = Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
