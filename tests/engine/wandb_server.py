"""A W&B server on loopback, just enough of one for the real SDK in online mode, which can break in every way.

It answers well until ``breaks_at`` (init: at once; running: it has taken the run; finish: it hears of the run's end),
and from then on as ``fault`` says:
refuse (no listener, open connections cut), silent (never an answer), error (HTTP 500), text (200, but no JSON),
truncated (half an answer, then the end).
"""

import gzip
import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

USER = {"id": "u", "entity": "me", "username": "me", "name": "me", "email": "a@b.c", "admin": False, "flags": "{}"}
NONE: dict[str, list[Any]] = {"edges": []}


class WandbServer:
    """Runs while entered. ``requests`` holds path and body of each request; ``broken`` is set from the fault on."""

    def __init__(self, fault: str | None = None, breaks_at: str = "init") -> None:
        self.fault, self.breaks_at = fault, breaks_at
        self.requests: list[tuple[str, str]] = []
        self.broken = threading.Event()
        self._sockets: list[socket.socket] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                outer._sockets.append(self.connection)

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                outer._answer(self)

            do_POST = do_PUT = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "WandbServer":
        self._thread.start()
        if self.fault and self.breaks_at == "init":
            self._break()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _break(self) -> None:
        self.broken.set()
        if self.fault == "refuse":
            self._close()

    def _close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        text = body.decode(errors="replace")
        self.requests.append((request.path, text))
        is_end = request.path.endswith("/file_stream") and '"complete":true' in text.replace(" ", "")
        if self.fault and self.breaks_at == "finish" and is_end:
            self._break()
        if not self.broken.is_set():
            _send(request, 200, json.dumps(_reply(request.path, text)).encode())
            if self.fault and self.breaks_at == "running" and "upsertBucket" in text:
                self._break()
        elif self.fault == "silent":
            time.sleep(600)
        elif self.fault == "error":
            _send(request, 500, b"Internal Server Error")
        elif self.fault == "text":
            _send(request, 200, b"<html>not what you think")
        elif self.fault == "truncated":
            answer = json.dumps(_reply(request.path, text)).encode()
            _send(request, 200, answer, answer[: len(answer) // 2])
            request.close_connection = True


def _send(request: BaseHTTPRequestHandler, status: int, answer: bytes, sent: bytes | None = None) -> None:
    request.send_response(status)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", str(len(answer)))
    request.end_headers()
    request.wfile.write(answer if sent is None else sent)
    request.wfile.flush()


def _reply(path: str, text: str) -> dict[str, Any]:
    if not path.endswith("/graphql"):
        return {}
    asked = json.loads(text)
    query, given = asked.get("query", ""), asked.get("variables") or {}
    if "upsertBucket" in query:
        project = {"id": "p", "name": given.get("project") or "p", "entity": {"id": "e", "name": "me"}}
        name = given.get("name") or "r"
        bucket = {"id": "x", "name": name, "displayName": name, "project": project, "historyLineCount": 0}
        bucket |= {"eventsLineCount": 0, "logLineCount": 0, "history": "[]", "events": "[]", "tags": []}
        return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
    if "createRunFiles" in query:
        files = [{"name": name, "uploadUrl": ""} for name in given.get("files", [])]
        return {"data": {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}}
    if "viewer" in query:
        info = {"cliVersionInfo": None, "latestLocalVersionInfo": None, "features": []}
        return {"data": {"viewer": USER | {"teams": NONE, "apiKeys": NONE}, "serverInfo": info}}
    if "serverInfo" in query:
        return {"data": {"serverInfo": {"cliVersionInfo": None, "features": []}}}
    return {"data": {}}
