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
    """Runs while entered. ``requests`` holds path and body of each request; ``broken`` is set from the fault on.

    ``store`` is what it knows of runs and artifacts by then.
    """

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
        self.store = _Store(self.url)
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
            _send(request, 200, json.dumps(self.store.reply(request.path, text)).encode())
            if self.fault and self.breaks_at == "running" and "upsertBucket" in text:
                self._break()
        elif self.fault == "silent":
            time.sleep(600)
        elif self.fault == "error":
            _send(request, 500, b"Internal Server Error")
        elif self.fault == "text":
            _send(request, 200, b"<html>not what you think")
        elif self.fault == "truncated":
            answer = json.dumps(self.store.reply(request.path, text)).encode()
            _send(request, 200, answer, answer[: len(answer) // 2])
            request.close_connection = True


def _send(request: BaseHTTPRequestHandler, status: int, answer: bytes, sent: bytes | None = None) -> None:
    request.send_response(status)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", str(len(answer)))
    request.end_headers()
    request.wfile.write(answer if sent is None else sent)
    request.wfile.flush()


class _Store:
    """What the server was given: runs with their history, artifacts and what became of them.

    A run: ``history`` (rows by their place in the file), ``made`` and ``used`` artifacts. An artifact: name, digest,
    aliases and files; the same digest under the same name is the same one.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.uploads: dict[str, int] = {}
        self.views: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def reply(self, path: str, text: str) -> dict[str, Any]:
        with self.lock:
            if path.startswith("/upload/"):
                self.uploads[path.removeprefix("/upload/")] = len(text)
            elif path.endswith("/file_stream"):
                self._take_rows(path.split("/")[-2], json.loads(text))
            elif path.endswith("/graphql"):
                asked = json.loads(text)
                given = asked.get("variables") or {}
                return {"data": self._answer(asked.get("query", ""), given, given.get("input") or {})}
            return {}

    def _take_rows(self, run: str, told: dict[str, Any]) -> None:
        history = (told.get("files") or {}).get("wandb-history.jsonl")
        if history:
            rows = self._run(run)["history"]
            rows[history["offset"] :] = [json.loads(line) for line in history["content"]]

    def _run(self, name: str) -> dict[str, Any]:
        return self.runs.setdefault(name, {"history": [], "made": [], "used": []})

    def _bucket(self, name: str) -> dict[str, Any]:
        rows = self._run(name)["history"]
        bucket = {"id": "x", "name": name, "displayName": name, "historyLineCount": len(rows), "tags": []}
        bucket |= {"eventsLineCount": 0, "logLineCount": 0, "history": "[]", "events": "[]", "eventsTail": "[]"}
        return bucket | {"historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]), "config": "{}"}

    def _answer(self, query: str, given: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
        if "RunResumeStatus" in query:
            known = given["name"] in self.runs
            entity = {"id": "e", "name": "me"}
            bucket = self._bucket(given["name"]) | {"summaryMetrics": "{}", "wandbConfig": "{}"} if known else None
            return {
                "model": {"id": "p", "name": given["project"], "entity": entity, "bucket": bucket} if known else None
            }
        if "upsertBucket" in query:
            project = {"id": "p", "name": given.get("project") or "p", "entity": {"id": "e", "name": "me"}}
            bucket = self._bucket(given.get("name") or "r") | {"project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in given.get("files", [])]
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        if "createArtifact(" in query:
            return {"createArtifact": {"artifact": self._create(told)}}
        if "createArtifactManifest(" in query or "updateArtifactManifest(" in query:
            verb = "createArtifactManifest" if "createArtifactManifest(" in query else "updateArtifactManifest"
            name = f"manifest-{given.get('artifactID') or given.get('artifactManifestID')}"
            file = {"id": "f", "uploadUrl": f"{self.url}/upload/{name}", "uploadHeaders": []}
            return {verb: {"artifactManifest": {"id": name, "file": file}}}
        if "createArtifactFiles(" in query:
            return {
                "createArtifactFiles": {
                    "files": {"edges": [{"node": self._file(one)} for one in told["artifactFiles"]]}
                }
            }
        if "commitArtifact(" in query:
            artifact = self.artifacts[int(given["artifactID"])]
            artifact["state"] = "COMMITTED"
            return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": artifact["digest"]}}}
        if "useArtifact(" in query:
            self._run(told["runName"])["used"].append(int(told["artifactID"]))
            return {"useArtifact": {"artifact": {"id": told["artifactID"]}}}
        if "query ArtifactType(" in query:
            return {"project": None}
        if "upsertView(" in query:
            self.views.append(json.loads(given["spec"]))
            return {"upsertView": {"view": {"id": "v", "name": given["name"]}, "inserted": True}}
        if "viewer" in query:
            info: dict[str, Any] = {"cliVersionInfo": None, "latestLocalVersionInfo": None, "features": []}
            return {"viewer": USER | {"teams": NONE, "apiKeys": NONE}, "serverInfo": info}
        return {"serverInfo": {"cliVersionInfo": None, "features": []}} if "serverInfo" in query else {}

    def _create(self, told: dict[str, Any]) -> dict[str, Any]:
        name, digest = told["artifactCollectionName"], told["digest"]
        same = [i for i, one in enumerate(self.artifacts) if (one["name"], one["digest"]) == (name, digest)]
        if not same:
            same = [len(self.artifacts)]
            self.artifacts.append({"name": name, "digest": digest, "state": "PENDING", "aliases": set(), "files": []})
        artifact = self.artifacts[same[0]]
        aliases = {one["alias"] for one in told["aliases"] or []}
        for other in self.artifacts:
            if other["name"] == name:
                other["aliases"] -= aliases
        artifact["aliases"] |= aliases
        if not told.get("isUserCreated"):
            self._run(told["runName"])["made"].append(same[0])
        return {"id": str(same[0]), "state": artifact["state"], "artifactSequence": {"latestArtifact": None}}

    def _file(self, one: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[int(one["artifactID"])]["files"].append(one["name"])
        path = f"artifact-{one['artifactID']}/{one['name']}"
        url = f"{self.url}/upload/{path}"
        artifact = {"id": one["artifactID"]}
        return {"id": path, "name": one["name"], "displayName": one["name"], "uploadUrl": url, "uploadHeaders": [],
                "storagePath": path, "uploadMultipartUrls": None, "artifact": artifact}  # fmt: skip
