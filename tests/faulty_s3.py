"""A real S3 server on loopback, and a proxy before it that goes wrong as a test says."""

import logging
import re
import socket
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any

HEAD_END = b"\r\n\r\n"
BUSY = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n"
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


@contextmanager
def server() -> Iterator[str]:
    """The address HOST:PORT of a moto server, for as long as the block runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
    try:
        host, port = moto.get_host_and_port()
        yield f"{host}:{port}"
    finally:
        moto.stop()


def make_bucket(endpoint: str, name: str) -> None:
    """A new, empty bucket."""
    urllib.request.urlopen(urllib.request.Request(f"http://{endpoint}/{name}", method="PUT")).close()


def put(endpoint: str, key: str, content: bytes) -> None:
    """Write an object by a key of any form, bucket first, as no program of ours would."""
    with socket.create_connection(tuple(endpoint.split(":"))) as client:  # type: ignore[arg-type]
        head = f"PUT /{key} HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\nContent-Length: {len(content)}"
        client.sendall(head.encode() + HEAD_END + content)
        assert b" 200 " in client.recv(4096)


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests whose "METHOD /path" matches ``request``."""

    kind: str  # busy, stall, cut
    request: str
    times: float
    seconds: float = 0.0  # stall: before the request is passed on
    after: int = 0  # cut: bytes of the body that still get through


@dataclass
class Proxy:
    """Passes requests on to ``upstream``, each over a connection of its own, but for its faults."""

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)  # "METHOD /path" of each request
    bucket: str = ""
    address: str = ""  # of a folder in the bucket, as a configuration has it

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._socket.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def fail(self, kind: str, request: str = ".", times: float = float("inf"), **more: Any) -> None:
        """Let requests go wrong from now on."""
        with self._lock:
            self.faults.append(Fault(kind, request, times, **more))

    def heal(self) -> None:
        """Let nothing go wrong from now on."""
        with self._lock:
            self.faults.clear()

    def close(self) -> None:
        """Let nobody answer from now on."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # what waits for a client ends
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while HEAD_END not in head:
                if not (more := client.recv(65536)):
                    return
                head += more
            head, _, body = head.partition(HEAD_END)
            method, path, *_ = head.split(b"\r\n")[0].decode().split(" ")
            fault = self._next(f"{method} {path}")
            if fault and fault.kind == "busy":
                client.sendall(BUSY)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):  # else the answer is lost with what was not read
                    pass
                return
            if fault and fault.kind == "stall":
                time.sleep(fault.seconds)
            host, port = self.upstream.split(":")
            with socket.create_connection((host, int(port))) as upstream:
                head = re.sub(rb"(?i)\r\nConnection:[^\r]*", b"", head) + b"\r\nConnection: close"
                upstream.sendall(head + HEAD_END + body)
                left = fault.after if fault and fault.kind == "cut" else None
                Thread(target=_pump, args=(client, upstream, left), daemon=True).start()
                _pump(upstream, client, None)

    def _next(self, request: str) -> Fault | None:
        with self._lock:
            self.seen.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.request, request):
                    fault.times -= 1
                    return fault
        return None


def _pump(source: socket.socket, target: socket.socket, left: int | None) -> None:
    """Pass bytes on until the source ends, or ``left`` of them are through: then both ends break."""
    with suppress(OSError):
        while more := source.recv(65536):
            if left is not None and len(more) > left:
                for one in (source, target):
                    one.shutdown(socket.SHUT_RDWR)
                return
            target.sendall(more)
            left = None if left is None else left - len(more)
        target.shutdown(socket.SHUT_WR)
