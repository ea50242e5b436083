"""A real `pilotlight serve` process: started, found by its ready line, ended and checked.

All that it starts carries a mark in its environment, so whatever outlives it is found, however it got lost.
"""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

import httpx
import psutil

from prepared import Prepared

T = TypeVar("T")

PROGRAM = "from pilotlight.__main__ import main; main()"

FAST = f"""
from pilotlight.power import sampling, saver
from pilotlight.scheduler import gate

sampling.PERIOD_S, sampling.FRESH_S, sampling.SOONEST_S, gate.RECHECK_S = 0.1, 0.2, 0.02, 0.2
saver.DELAYS = {{wish: seconds / 10 for wish, seconds in saver.DELAYS.items()}}
{PROGRAM}
"""
"""A daemon that looks at its machine ten times as often, and decides as soon."""

MARK = "SERVED_FOR_TEST"

NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
"""The environment of a process whose files cannot grow: of a compiled module Python would keep the half that
it could write, and no process could import that any more."""

PERSONAL = ("PILOTLIGHT_", "HF_", "HUGGINGFACE_", "OLLAMA_")
"""How the variables begin that say what the person who runs the tests has."""

NOWHERE = "/nonexistent"

END_S = 20
"""For a process to end or a condition to come true on a busy machine."""

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For `httpx`, which otherwise reads all certificates of the world for each request."""

HELLO = [{"role": "user", "content": "one two three"}]


class Daemon:
    """One daemon process, its models and its log."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        models: str = "",
        program: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; `models` is the text of models.toml. It may not be ready yet: see `wait_ready`.

        A `program` that breaks something and then does what `PROGRAM` does is a daemon with a fault. With
        `PROGRAM` itself it is started as users start it; all others are `Prepared`. `environ` is what it and
        its workers have besides our environment.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.state_dir = folder / "state"
        self.url = ""
        self.ready_line = ""
        self._mark = uuid.uuid4().hex
        self._is_expected = False
        """That it has ended."""
        self._log = folder / "daemon.log"
        config = folder / "models.toml"
        config.write_text(models)
        options = ["--port", "0", "--config", str(config), "--state-dir", str(self.state_dir)]
        # Nor the models that the person who runs the tests has pulled.
        known = clean_environ() | {MARK: self._mark, "XDG_DATA_HOME": str(folder / "data")}
        self._stdout, self.process = _started(
            ["serve", *options, *arguments], known | dict(environ or {}), self._log, program
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_ready(self) -> None:
        """Until it has printed the ready line, which ends with the URL."""
        self.ready_line = self._stdout.readline()
        assert self.ready_line, f"no ready line; the daemon's log:\n{self.log}"
        self.url = self.ready_line.split()[-1]

    # --- requests ---

    def post(
        self, model: str, *, path: str = "chat/completions", patience_s: float = END_S, **fields: Any
    ) -> httpx.Response:
        """One request, not streamed."""
        return httpx.post(
            f"{self.url}/v1/{path}", json=chat(model, **fields), timeout=patience_s, verify=NO_TLS
        )

    @contextmanager
    def stream(self, model: str, **fields: Any) -> Iterator[Iterator[dict[str, Any]]]:
        """The events of a streamed chat: parsed, and the last one `{"done": True}` if it was `[DONE]`."""
        body = chat(model, stream=True, **fields)
        url = f"{self.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, timeout=END_S, verify=NO_TLS) as response:
            assert response.status_code == 200, response.read()
            yield events(response)

    def admin(self, what: str, **body: Any) -> httpx.Response:
        """POST to /admin, with the key that the daemon says."""
        return httpx.post(
            f"{self.url}/admin/{what}", json=body, headers=self.key, timeout=3 * END_S, verify=NO_TLS
        )

    @property
    def key(self) -> dict[str, str]:
        """The header with the admin key, found as other programs find it."""
        running = json.loads((self.state_dir / "daemon.json").read_text())
        return {"authorization": f"Bearer {Path(running['key_file']).read_text().strip()}"}

    def get(self, path: str) -> httpx.Response:
        """With the admin key where it needs one."""
        headers = self.key if path.startswith("/admin") else None
        return httpx.get(self.url + path, headers=headers, timeout=END_S, verify=NO_TLS)

    def model(self, name: str) -> dict[str, Any]:
        """What /v1/models says of it."""
        found: dict[str, Any] = self.get(f"/v1/models/{name}").json()
        return found

    def notices(self) -> dict[str, dict[str, Any]]:
        """What stands in /health, by code."""
        return {notice["code"]: notice for notice in self.get("/health").json()["notices"]}

    def is_idle(self, model: str) -> bool:
        """Nobody runs or waits."""
        status = self.model(model)
        return (status["active"], status["queued"]) == (0, 0)

    def faults(self, model: str) -> list[str]:
        """What the worker's own count says, which it gives once nothing runs and nobody asks; the daemon has
        to log at level debug."""
        until(lambda: self.is_idle(model))
        until(lambda: self._is_counted(model))
        return [notice["text"] for code, notice in self.notices().items() if code == f"worker_fault_{model}"]

    def _is_counted(self, model: str) -> bool:
        """The worker has said what it holds since the last request ended."""
        _, _, since = self.log.rpartition("endpoint=/v1/chat/completions")
        return f'event="worker counted" model={model} ' in since

    # --- processes ---

    def worker(self, model: str) -> psutil.Process:
        """The process that holds the model now, as the log tells."""
        pids = re.findall(rf'event="worker ready" model={re.escape(model)} pid=(\d+)', self.log)
        return psutil.Process(int(pids[-1]))

    def processes(self) -> list[psutil.Process]:
        """Everything alive that this daemon started, and itself."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.pid == self.pid:
            return self.process.poll() is None
        try:
            return process.environ().get(MARK) == self._mark
        except (psutil.Error, OSError):  # it has ended, or is somebody else's
            return False

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the exit code; nothing that it started may be left."""
        code = self.process.wait(END_S)
        self._is_expected = True
        assert not self.processes(), f"left behind; the daemon's log:\n{self.log}"
        return code

    def kill(self) -> None:
        """As the kernel does it when memory is out. What it started may live on for a moment."""
        self.signal(signal.SIGKILL)
        assert self.process.wait(END_S) == -signal.SIGKILL
        self._is_expected = True

    def stop(self) -> str:
        """Ask it to end, which must succeed; returns what it printed after the ready line."""
        self.signal(signal.SIGTERM)
        assert self.ended() == 0, f"not a clean end; the daemon's log:\n{self.log}"
        return self._stdout.read()

    def close(self) -> None:
        """Stop it if it runs; whatever happens, leave no process. It must not have ended by itself."""
        try:
            if self.process.poll() is None:
                self.stop()
            else:
                is_expected = self._is_expected
                code = self.ended()
                assert is_expected, f"it has ended, with {code}; the daemon's log:\n{self.log}"
        except BaseException:
            for process in self.processes():
                process.kill()
            raise
        finally:
            self.process.wait(END_S)
            self._stdout.close()


def _started(
    command: Sequence[str], environ: Mapping[str, str], log: Path, program: str | None
) -> tuple[TextIO, Prepared | subprocess.Popen[bytes]]:
    """What it prints, and the process."""
    read, write = os.pipe()
    with open(os.devnull) as nothing, open(write, "w") as out, log.open("a") as words:
        streams = (nothing.fileno(), out.fileno(), words.fileno())
        if program != PROGRAM:
            return open(read), Prepared(command, environ, streams, program=program)
        fresh = [sys.executable, "-c", PROGRAM, *command]
        stdin, stdout, stderr = streams
        process = subprocess.Popen(
            fresh, env=environ, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
        return open(read), process


@contextmanager
def serving(folder: Path, *arguments: str, **settings: Any) -> Iterator[Daemon]:
    """A daemon that is ready; settings as for `Daemon`."""
    daemon = Daemon(folder, *arguments, **settings)
    try:
        daemon.wait_ready()
        yield daemon
    finally:
        daemon.close()


def clean_environ() -> dict[str, str]:
    """Ours without the settings of the person who runs the tests, and without their models and battery."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(PERSONAL)}
    ours |= {"PILOTLIGHT_STORES": ",", "PILOTLIGHT_MODEL_DIRS": ","}
    ours |= {"PILOTLIGHT_POWER_ROOT": NOWHERE, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={NOWHERE}"}
    # On a machine that is busy with other tests, what makes way for others may wait for ever, and threads
    # that wait for each other at every layer are much slower than one.
    return ours | {"PILOTLIGHT_POLICY_BACKGROUND_PRIORITY": "normal", "PILOTLIGHT_THREADS": "1"}


def on_path(folder: Path, **files: str) -> dict[str, str]:
    """The environment of a process that finds these modules first; sources by dotted name."""
    for name, source in files.items():
        path = folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(source)
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}


def echo(folder: Path, name: str = "echo", parallel: int = 0, **knobs: Any) -> str:
    """The [[model]] table of an echo model; its file with these knobs (see `runtimes.echo`) is written."""
    path = folder / f"{name}.toml"
    # A JSON string, number, boolean or list is TOML, too.
    path.write_text("".join(f"{knob} = {json.dumps(value)}\n" for knob, value in knobs.items()))
    return table(name, path, runtime="echo", parallel=parallel)


def table(name: str, path: Path, **settings: Any) -> str:
    """One [[model]] table."""
    values = {"name": name, "path": str(path), **settings}
    return "[[model]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def chat(model: str, **fields: Any) -> dict[str, Any]:
    """The body of a request."""
    prompt = {} if "prompt" in fields else {"messages": HELLO}
    return {"model": model, **prompt, **fields}


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream; comments are left out."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield {"done": True} if data == "[DONE]" else json.loads(data)


def text_of(stream: Iterator[dict[str, Any]]) -> str:
    """All text of the chat events; an error among them fails."""
    pieces = []
    for event in stream:
        assert "error" not in event, event
        pieces += [choice["delta"].get("content") or "" for choice in event.get("choices", ())]
    return "".join(pieces)


def until(condition: Callable[[], T], within_s: float = END_S) -> T:
    """Ask until the answer is truthy, and return it. For what gives no event to wait for."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"still not so after {within_s} s"
        time.sleep(0.01)
    return found
