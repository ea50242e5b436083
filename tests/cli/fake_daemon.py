"""A small HTTP server that stands in for the daemon."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = {
    "id": "pilot",
    "aliases": [],
    "path": "/models/pilot.gguf",
    "state": "ready",
    "runtime": "llamacpp",
    "context": 2048,
    "threads": 2,
    "enough_threads": None,
    "is_measuring": False,
    "bytes_resident": 64 * 2**20,
    "cost": {"estimated": 60 * 2**20, "at_most": 90 * 2**20},
}
MODEL |= {"progress": 1.0, "active": 1, "queued": 2, "classes": {}, "paused": 0}
MODEL |= {"versions": []}
MODEL |= {"bytes_charged": 128 * 2**20, "pin": False, "unload_in_s": None}


READING = {
    "percent": {
        "value": 41.5,
        "unit": "%",
        "age_s": 3.1,
        "source": "power_supply BAT0",
        "confidence": "measured",
    },
    "celsius": {"value": None, "reason": "there is no thermometer"},
}

POLICY = {
    "reading": READING,
    "preset": "balanced",
    "rules": [
        {"name": "low battery", "is_in_force": True, "for_s": 9.0, "begins_in_s": None, "ends_in_s": 21.0},
        {"name": "saver on", "is_in_force": False, "for_s": None, "begins_in_s": 1.0, "ends_in_s": None},
    ],
    "classes": {
        "interactive": None,
        "background": {"reason": "on battery: background requests wait"},
    },
    "pacing": {
        "duty": 0.4,
        "is_resting": True,
        "reason": "the forecast headroom, 0.93, is above the 0.78 that leave room for an answer",
        "rest_left_s": 3.2,
        "forecast": 0.93,
        "target": 0.78,
        "reserve": 0.2,
    },
    "saver_held": True,
    "held": 1,
    "override_left_s": 60.0,
}

ENERGY: dict[str, Any] = {
    "meters": [
        {"method": "battery", "scope": "system", "joules": 1010.0, "unattributed_joules": 10.0},
        {
            "method": "rapl",
            "scope": "package",
            "joules": 0.0,
            "unattributed_joules": 0.0,
            "reason": "root alone may read it",
        },
    ],
    "models": [
        {
            "model": "pilot",
            "method": "battery",
            "scope": "system",
            "joules": 1000.0,
            "prefill_joules": 250.0,
            "decode_joules": 750.0,
            "prefill_tokens": 800,
            "decode_tokens": 300,
            "battery_percent": 0.5555,
        }
    ],
    "apps": [
        {
            "app": "curl",
            "class": "interactive",
            "method": "rapl",
            "scope": "package",
            "joules": 4.0,
            "prefill_joules": 4.0,
            "decode_joules": 0.0,
            "prefill_tokens": 8,
            "decode_tokens": 0,
        }
    ],
}


@dataclass
class FakeDaemon:
    """What the stand-in answers, and the chat bodies it was sent."""

    url: str = ""
    models: list[dict[str, Any]] = field(default_factory=lambda: [dict(MODEL)])
    memory: dict[str, int] = field(default_factory=lambda: {"budget": 2**30, "charged": 2**27, "archived": 0})
    notices: list[dict[str, Any]] = field(default_factory=list)
    answers: list[str] = field(default_factory=lambda: ["Hello", " there"])
    finish_reason: str = "stop"
    error: str | None = None
    refused: str | None = None
    """The path that needs a key."""
    error_at_end: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    """What stood in the Authorization header of its requests."""
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What else it answers, by path."""
    held: threading.Event | None = None
    """An answer with this set waits before its last piece until the event, or until the client leaves."""

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]


@contextmanager
def serving(fake: FakeDaemon) -> Iterator[FakeDaemon]:
    """Answer on a port of its own while the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(fake: FakeDaemon) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.keys.add(self.headers["Authorization"])
            bodies: dict[str, dict[str, Any]] = {
                "/health": {"status": "ok", "notices": fake.notices},
                "/v1/models": {"data": fake.models, "memory": fake.memory},
                "/admin/policy": POLICY,
                "/admin/energy": ENERGY,
                "/admin/models": {"models": fake.models, "not_used": []},
                **{f"/admin/models/{model['id']}": model for model in fake.models},
                **fake.bodies,
            }
            if self.path == fake.refused:
                self._json(401, {"error": {"message": "/admin needs the key"}})
            elif self.path in bodies:
                self._json(200, bodies[self.path])
            else:
                self._json(404, {"error": {"message": "no model has that name"}})

        def do_POST(self) -> None:
            fake.keys.add(self.headers["Authorization"])
            fake.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if fake.error is not None:
                self._json(404, {"error": {"message": fake.error}})
            elif self.path.startswith("/admin/"):
                self._json(200, fake.models[0] | {"asked": self.path})
            else:
                self._stream()

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            *first, last = fake.answers
            self.wfile.write(b": keep-alive\n\n")
            for piece in first:
                self._event({"choices": [{"delta": {"content": piece}}]})
            if fake.held is not None:
                fake.held.wait(30)
            self._event({"choices": [{"delta": {"content": last}}]})
            self._event({"choices": [{"delta": {}, "finish_reason": fake.finish_reason}]})
            if fake.error_at_end:
                self._event({"error": {"message": fake.error_at_end}})
            else:
                self.wfile.write(b"data: [DONE]\n\n")

        def _event(self, data: dict[str, Any]) -> None:
            self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")

        def _json(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

    return Handler
