"""Starts Pilotlight and its peers as child processes, waits until they serve, and always ends them.

It knows how each is told about model, threads, context and slots; it measures nothing but the start.
"""

import asyncio
import importlib.util
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil

from client import CallFailed, Client
from processes import tree

START_LIMIT_S = 180.0
STOP_LIMIT_S = 20.0
NUM_LOG_LINES = 15


class ServerFailed(Exception):
    """A server did not start; the message carries the end of its log."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What both sides are given alike."""

    model: Path
    num_threads: int
    context: int
    num_parallel: int


@dataclass(frozen=True, slots=True)
class Launch:
    """How one server is started; without a `port` it prints its URL on stdout."""

    name: str
    command: tuple[str, ...]
    model: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    url: str
    model: str
    pid: int
    started_s: float
    ready_s: float


def pilotlight(command: str, state_dir: Path, settings: Settings | None = None) -> Launch:
    """Pilotlight on a free port; without settings it serves only the built-in model."""
    base = (command, "serve", "--port", "0", "--state-dir", str(state_dir))
    if settings is None:
        return Launch("pilotlight", base, "pilot")
    sizes = {
        "--model": settings.model,
        "--threads": settings.num_threads,
        "--context": settings.context,
        "--parallel": settings.num_parallel,
    }
    options = [str(word) for pair in sizes.items() for word in pair]
    return Launch("pilotlight", (*base, *options), settings.model.stem)


def peer(wanted: str | None, settings: Settings) -> Launch:
    """The peer named by the flag, else llama-server on PATH, else xllamacpp in this environment."""
    if wanted == "mlx_lm.server":
        return _mlx_lm(settings)
    binary = shutil.which(wanted or "llama-server")
    if binary:
        return _llama_server(binary, settings)
    if wanted in (None, "xllamacpp") and importlib.util.find_spec("xllamacpp"):
        return _xllamacpp(settings)
    raise ServerFailed(
        f"no peer: {wanted or 'llama-server'} is not found; put llama-server on PATH, "
        "give its path with --peer, or `pip install xllamacpp` into this environment"
    )


def find_pilotlight(wanted: str | None) -> str:
    """The command given, else the one installed beside this Python, else the one on PATH."""
    beside = str(Path(sys.executable).parent / "pilotlight")
    for command in (wanted,) if wanted else (beside, "pilotlight"):
        if found := shutil.which(command):
            return found
    raise ServerFailed(
        f"{wanted or 'pilotlight'} is not found; install it into this environment or give --pilotlight"
    )


def admin_key(state_dir: Path) -> dict[str, str]:
    """The header with which a Pilotlight of this state directory lets in whoever wants to change it."""
    return {"authorization": f"Bearer {(state_dir / 'admin.key').read_text().strip()}"}


def end_on_sigterm() -> None:
    """Let SIGTERM unwind this program as Ctrl-C does, so that no server outlives it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@asynccontextmanager
async def running(launch: Launch) -> AsyncIterator[Server]:
    """Start the server, yield it once it answers, end it and all its children; raises ServerFailed."""
    with tempfile.TemporaryFile() as log:
        started_s = time.perf_counter()
        process = await _spawn(launch, log)
        draining: asyncio.Task[bytes] | None = None
        try:
            url = await _ready_url(launch, process, log)
            ready_s = time.perf_counter() - started_s
            if process.stdout:
                draining = asyncio.create_task(process.stdout.read())
            yield Server(url, launch.model, process.pid, started_s, ready_s)
        finally:
            if draining:
                draining.cancel()
            await _stop(process)


async def _spawn(launch: Launch, log: BinaryIO) -> asyncio.subprocess.Process:
    """In a session of its own: a Ctrl-C here reaches it only through `_stop`."""
    stdout = asyncio.subprocess.PIPE if launch.port is None else log
    try:
        return await asyncio.create_subprocess_exec(
            *launch.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=log,
            start_new_session=True,
        )
    except OSError as error:
        raise ServerFailed(f"{launch.name} cannot be started: {error}") from error


async def _ready_url(launch: Launch, process: asyncio.subprocess.Process, log: BinaryIO) -> str:
    try:
        async with asyncio.timeout(START_LIMIT_S):
            if launch.port is None:
                url = await _printed_url(process)
            else:
                url = await _healthy_url(f"http://127.0.0.1:{launch.port}", process)
    except TimeoutError as error:
        raise ServerFailed(_failure(launch, f"not ready within {START_LIMIT_S:.0f} s", log)) from error
    if url is None:
        code = await process.wait()
        raise ServerFailed(_failure(launch, f"ended with code {code} before it was ready", log))
    return url


async def _printed_url(process: asyncio.subprocess.Process) -> str | None:
    """The URL of the first line on stdout that has one; None when stdout closes first."""
    assert process.stdout
    async for line in process.stdout:
        if found := re.search(r"https?://[^\s/]+", line.decode(errors="replace")):
            return found[0]
    return None


async def _healthy_url(url: str, process: asyncio.subprocess.Process) -> str | None:
    """The URL once /health answers 200; None when the process ends first."""
    while process.returncode is None:
        with suppress(CallFailed):  # nobody listens yet
            async with Client(url) as client:
                if await client.get("/health") == 200:
                    return url
        await asyncio.sleep(0.05)
    return None


def _failure(launch: Launch, what: str, log: BinaryIO) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()[-NUM_LOG_LINES:]
    return "\n  ".join([f"{launch.name} {what}: {' '.join(launch.command)}", *lines])


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask, then kill; what the server leaves of its children is killed too."""
    family = tree(process.pid) if psutil.pid_exists(process.pid) else []
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(STOP_LIMIT_S):
            await process.wait()
    except TimeoutError:
        print(f"server {process.pid} ignored SIGTERM for {STOP_LIMIT_S:.0f} s; killed", file=sys.stderr)
        process.kill()
        await process.wait()
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    # A crashed server's children have no parent to be found by, but they are still in its session.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _llama_server(binary: str, settings: Settings) -> Launch:
    port = free_port()
    options = {
        "-m": settings.model,
        "-t": settings.num_threads,
        "-tb": settings.num_threads,
        "-c": settings.context,
        "-np": settings.num_parallel,
        "--host": "127.0.0.1",
        "--port": port,
    }
    words = [str(word) for pair in options.items() for word in pair]
    return Launch("llama-server", (binary, *words), settings.model.stem, port)


def _xllamacpp(settings: Settings) -> Launch:
    port = free_port()
    script = Path(__file__).with_name("peer_xllamacpp.py")
    numbers = (port, settings.num_threads, settings.context, settings.num_parallel)
    command = (sys.executable, str(script), str(settings.model), *map(str, numbers))
    return Launch("xllamacpp", command, settings.model.stem, port)


def _mlx_lm(settings: Settings) -> Launch:
    """mlx-lm's server beside this Python; it takes no number of threads and no context."""
    port = free_port()
    options = {
        "--model": settings.model,
        "--host": "127.0.0.1",
        "--port": port,
        "--decode-concurrency": settings.num_parallel,
    }
    words = [str(word) for pair in options.items() for word in pair]
    # Under any other name it would look for a model of that name.
    return Launch("mlx_lm.server", (sys.executable, "-m", "mlx_lm", "server", *words), "default_model", port)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
