"""A small hub on this machine: a real HTTP server that speaks the real protocol, and can misbehave.

It has repositories with commits, tells sizes and hashes, and redirects downloads to a host of its own (here:
another port), as the hub does. `faults` are what the next downloads of a file meet, first come, first served.
"""

import hashlib
import json
import re
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_BYTES = 1024
"""Files from this size up are kept in LFS, as on the hub: by their SHA-256 instead of their git blob."""


WRONG = bytes(byte ^ 1 for byte in range(256))
"""What each byte becomes; tens of megabytes of them in no time."""


@dataclass
class Fault:
    """What one download meets instead of its file; `after` is how many bytes come before it."""

    kind: str
    after: int = 0
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Hub:
    """The repositories, what was asked for, and the faults to come; everything by name."""

    url: str = ""
    cdn: str = ""
    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """By repository and commit, the latest commit last: the files."""
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    listing_faults: deque[Fault] = field(default_factory=deque)
    sizes: dict[str, int] = field(default_factory=dict)
    """What it says instead of a file's real size."""
    digests: dict[str, str] = field(default_factory=dict)
    """What it says instead of its SHA-256."""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers of every request."""
    etags: dict[str, str] = field(default_factory=dict)
    """By file: it is served with this mark, and ranges of it are sent as they are asked for."""
    together: threading.Barrier = field(default_factory=partial(threading.Barrier, 2))
    """Where downloads with the fault "together" wait for each other."""
    go_on: threading.Event = field(default_factory=threading.Event)
    """Ends every stall and every pause."""

    def commit_files(self, repo: str, files: dict[str, bytes]) -> str:
        """Add a commit with these files; returns its hash."""
        commits = self.repos.setdefault(repo, {})
        sha = hashlib.sha1(f"{repo}{len(commits)}".encode()).hexdigest()
        commits[sha] = files
        return sha

    def fail(self, path: str, *faults: Fault) -> None:
        """The next downloads of the file meet these, in this order."""
        self.faults[path].extend(faults)

    def downloads(self, path: str) -> list[dict[str, str]]:
        """The headers of every download of the file, as its host saw them."""
        return [headers for method, asked, headers in self.asked if asked.endswith(f"/cdn/{path}")]

    def listing(self, repo: str, revision: str) -> dict[str, Any] | None:
        """What the hub tells of a repository; None if it has no such revision."""
        commits = self.repos.get(repo, {})
        sha = list(commits)[-1] if revision == "main" and commits else revision
        if sha not in commits:
            return None
        siblings = [_sibling(name, data) for name, data in commits[sha].items()]
        for sibling in siblings:
            sibling["size"] = self.sizes.get(sibling["rfilename"], sibling["size"])
            if digest := self.digests.get(sibling["rfilename"]):
                sibling["lfs"]["sha256"] = digest
        return {"id": repo, "sha": sha, "siblings": siblings}


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    about: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git}
    if len(data) >= LFS_BYTES:
        about["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return about


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub that answers while the block lasts."""
    found = Hub()
    with _server(_hub_handler(found)) as found.url, _server(_cdn_handler(found)) as found.cdn:
        try:
            yield found
        finally:
            found.go_on.set()


@contextmanager
def _server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


def _next(faults: deque[Fault]) -> Fault | None:
    """The next one, if one is left. Several threads take from the same, so it is not looked for before."""
    with suppress(IndexError):
        return faults.popleft()
    return None


def _hub_handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(("GET", path, {name.lower(): value for name, value in self.headers.items()}))
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
                self._list(found[1], found[2])
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path):
                target = f"{hub.cdn}/{found[1]}/{found[2]}/cdn/{found[3]}?signature=secret"
                self.say(302, Location=target, X_Repo_Commit=found[2])
            else:
                self.say(404)

        def _list(self, repo: str, revision: str) -> None:
            if (fault := _next(hub.listing_faults)) is not None:
                self.say(fault.status, b"{}", **fault.headers)
            elif repo not in hub.repos:
                self.say(401, b'{"error":"Repository not found"}', X_Error_Code="RepoNotFound")
            elif (listing := hub.listing(repo, revision)) is None:
                self.say(404, b'{"error":"Invalid rev id"}', X_Error_Code="RevisionNotFound")
            else:
                self.say(200, json.dumps(listing).encode(), Content_Type="application/json")

    return Handler


def _cdn_handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(("GET", path, {name.lower(): value for name, value in self.headers.items()}))
            prefix, _, name = path.partition("/cdn/")
            repo, _, sha = prefix.strip("/").rpartition("/")
            data = hub.repos[repo][sha][name]
            etag = hub.etags.get(name)
            is_same = self.headers.get("If-Range") in (None, etag)
            self._serve(data, _next(hub.faults[name]) or Fault("none" if is_same else "no ranges"), etag)

        def _serve(self, data: bytes, fault: Fault, etag: str | None) -> None:
            first, _, last = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")
            begin, size = int(first), len(data)
            if begin >= size:
                self.say(416)
                return
            match fault.kind:
                case "status":
                    self.say(fault.status, b"not now", **fault.headers)
                    return
                case "wrong":
                    data = data.translate(WRONG)
                case "no ranges":
                    begin, last = 0, ""
                case "other range":
                    begin += 1
                case "page":
                    data, begin, last = b"<html>Please log in to the network</html>", 0, ""
                case "longer" | "endless":
                    data += b"more"
                    size += 4
            data = data[: int(last) + 1] if last else data
            self._head(data, begin, size, fault, etag)
            end = begin + fault.after if fault.after else len(data)
            self._body(data[begin:end], data[end:], fault)

        def _head(self, data: bytes, begin: int, size: int, fault: Fault, etag: str | None) -> None:
            is_part = "Range" in self.headers and fault.kind not in ("no ranges", "page")
            self.send_response(206 if is_part else 200)
            if etag is not None:
                self.send_header("ETag", etag)
                self.send_header("Accept-Ranges", "bytes")
            if is_part:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{size}")
            if fault.kind in ("endless", "short", "other range"):
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()

        def _body(self, body: bytes, rest: bytes, fault: Fault) -> None:
            if fault.kind == "together":
                hub.together.wait(30)
            self.wfile.write(body)
            self.wfile.flush()
            if fault.kind in ("stall", "pause"):
                hub.go_on.wait(30)
            if fault.kind == "pause":
                self.wfile.write(rest)
            if fault.kind in ("drop", "stall", "endless", "short", "other range"):
                self.close_connection = True

    return Handler
