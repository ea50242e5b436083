"""The daemon: the only place that builds the parts and wires them, and the order in which they start and
stop.

Start: socket, parts, scheduler, the ready line, HTTP. Stop: no new requests, drain HTTP, workers, the rest.
A part that fails takes everything down with exit code 1; a service manager starts it again.
"""

import dataclasses
import os
import signal
import socket
import sys
import threading
from collections.abc import Coroutine, Sequence
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus
from msgspec import to_builtins
from msgspec.structs import replace

from pilotlight import __version__
from pilotlight.address import bind, is_port_refused, url_of, why_not_bound
from pilotlight.api.app import create_app
from pilotlight.api.keys import Keys
from pilotlight.api.server import Server
from pilotlight.config import Config, check_preload, model_at, models, unpulled
from pilotlight.core import MemoryStatus, Model, ModelStatus, Request, Severity
from pilotlight.energy.counters import Counters
from pilotlight.energy.ledger import Ledger
from pilotlight.energy.meters import meters_of
from pilotlight.errors import ConfigError, Error
from pilotlight.log import bug
from pilotlight.metrics import Metrics
from pilotlight.notices import Notices
from pilotlight.policy.settings import hysteresis_of, rules_of
from pilotlight.power.clocks import Clock, Clocks
from pilotlight.power.files import Files
from pilotlight.power.gauges import Gauges
from pilotlight.power.machine import ThisMachine
from pilotlight.power.reading import Reading
from pilotlight.power.sampling import Sampler
from pilotlight.power.saver import Saver
from pilotlight.power.slowdown import Slowdown
from pilotlight.process import dump_no_core, leave_within, raise_descriptors, say
from pilotlight.registry import pressure
from pilotlight.registry.archive import archive_of, keep_tidy
from pilotlight.registry.budget import Budget
from pilotlight.registry.catalog import Catalog
from pilotlight.registry.costs import Costs
from pilotlight.registry.discovery import PRIVATE, Discovery
from pilotlight.registry.enough import Enough
from pilotlight.registry.estimate import Estimates
from pilotlight.registry.finder import Finder
from pilotlight.registry.keys import ensure_admin_key
from pilotlight.registry.ladder import Ladder
from pilotlight.registry.loader import Loader
from pilotlight.reload import Reloaded
from pilotlight.runtimes.archive import folder
from pilotlight.scheduler.answer import Answer
from pilotlight.scheduler.books import Books
from pilotlight.scheduler.gate import Gate, Policy
from pilotlight.scheduler.loop import Loop
from pilotlight.scheduler.pacer import Pacer
from pilotlight.settings import ClassesSettings
from pilotlight.signals import ENDING, RELOADING, Terminal, hearing
from pilotlight.store.pull import Puller
from pilotlight.store.pulls import Pulls
from pilotlight.store.shelf import Shelf
from pilotlight.store.smoke import Smoke

if TYPE_CHECKING:
    from pilotlight.batch.batches import Batches

log = structlog.get_logger()


NOT_RELOADED = "not_reloaded"

LEAVE_S = 12.0
"""Once nothing is served any more, workers save and end within 5 s, and nothing else takes long."""


class ExitCode(IntEnum):
    """What the process ends with."""

    STOPPED = 0
    FAILED = 1
    BAD_CONFIG = 2
    ADDRESS_IN_USE = 3
    FORCED = 4


def main(config: Config) -> int:
    """Serve until a signal; returns the exit code. A second signal ends the process at once.

    Raises `ConfigError` for a model's settings that contradict each other or its runtime, and for a model to
    be loaded at start that is not there.
    """
    check_preload(config)
    dump_no_core()
    raise_descriptors()
    try:
        sock = bind(config)
    except OSError as exc:
        print(f"pilotlight: {why_not_bound(config, exc)}", file=sys.stderr)
        return ExitCode.ADDRESS_IN_USE if is_port_refused(exc) else ExitCode.FAILED
    try:
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not before: a new key would shut everybody out of the daemon that has our port.
        admin_key = ensure_admin_key(config.state_dir)
    except OSError as exc:
        sock.close()
        print(f"pilotlight: state_dir {config.state_dir} cannot be used: {exc.strerror}", file=sys.stderr)
        return ExitCode.BAD_CONFIG
    daemon = Daemon(config, sock, admin_key)  # a setting that no runtime honours is told by who called us
    try:
        _run(daemon.serve())
    except Exception as exc:
        log.error("the daemon failed", **bug(exc))
        return ExitCode.FAILED
    return ExitCode.STOPPED


class Daemon:
    """`api.service.Service`, and the life of everything behind it."""

    def __init__(self, config: Config, sock: socket.socket, admin_key: str) -> None:
        self.config = config
        self._is_private = PRIVATE in os.environ
        self._is_draining = False
        self.keys = Keys(admin_key, config.state_dir, config.server.api_keys)
        self.catalog = Catalog(models(config), Finder(config.places, config), unpulled(config))
        self.notices = Notices()
        ladder = Ladder(config.state_dir)
        costs = Costs(config.state_dir, ladder)
        self._archive = archive_of(
            config.state_dir, config.memory.conversations, config.memory.conversations_for
        )
        enough = Enough(config.state_dir, Clocks(lambda: self.power.reading(), lambda: self.saver.is_held))
        loader = Loader(ladder, costs, self.notices, config.defaults.load_s, self._archive, enough)
        books = Books(Estimates(costs.known), Budget.parse(config.memory.budget, config.memory.reserve))
        slowdown = self._slowdown = Slowdown(lambda: self.power.hurry())
        self.saver = Saver()
        self.energy = Ledger(meters_of(Files(config.power.root)), config.power.watts_per_core)
        self._machine = ThisMachine(config.power.root)
        self.power = Sampler(self._machine, lambda: self._loop.pids(), self._slower)
        self._loop = Loop(
            self.catalog,
            loader,
            self.notices,
            books,
            config.server.queue,
            slowdown,
            self.energy,
            self.power,
            self.saver.wish,
        )
        self._settings = config
        self.shelf = Shelf(config)
        puller = Puller(self.shelf.store, Smoke(self._loop), self._model_at)
        self.metrics = Metrics(self.status, self.memory)
        self.gate = Gate(_policy(config), self.power, config.server.queue, self.metrics.count_transition)
        self.power.watch(lambda reading, _: self._loop.obey(self.gate.orders(reading)))
        self.power.look_later(lambda: self.gate.keep_alives if len(self._loop.pids()) > 1 else ())
        self.pacer = Pacer(self._loop, lambda: self.gate.is_free, self.metrics.count_rest)
        self.power.watch(self.pacer.on_reading)
        self.power.watch(self.energy.on_reading)
        self.metrics.registry.register(Gauges(lambda: self.power.last, anyio.current_time))
        self.metrics.registry.register(Counters(self.energy))
        self.metrics.show_policy(lambda: self.pacer.duty, lambda: self.gate.held, lambda: self.saver.is_held)
        self.pulls = Pulls(puller, self.refresh, self.metrics.count_pull)
        self._batches: Batches | None = None
        self._tasks: TaskGroup | None = None
        self._sock = sock
        self._server = Server(create_app(self), config)
        self._discovery = Discovery(config.state_dir)
        self._reloading = anyio.Lock()
        self._terminal = Terminal()
        self.is_ready = False

    # --- for the API ---

    def submit(self, request: Request) -> Answer:
        return self._loop.submit(request)

    @property
    def classes(self) -> ClassesSettings:
        return self._settings.classes

    @property
    def preset(self) -> str:
        return self._settings.policy.preset

    def standing(self, request: Request) -> str | None:
        return self._loop.standing(request)

    def status(self) -> Sequence[ModelStatus]:
        return self._loop.status()

    async def reload(self) -> Reloaded:
        """Read the settings again and take what may change while we run.

        Raises `ConfigError` for a wrong one; nothing has changed then.
        """
        async with self._reloading:
            read = await anyio.to_thread.run_sync(self.config.read_again or (lambda: self.config))
            check_preload(read)
            before = self.catalog.configured
            # Pulls go where they went.
            settings = dataclasses.replace(read, server=self.config.server)
            await self._serve_models(settings)
            self._settings, self.shelf = settings, Shelf(settings)
            self.gate.follow(_policy(read))
        self.notices.clear(NOT_RELOADED)
        reloaded = Reloaded.between(self.config, read, before, self.catalog.configured)
        log.info("settings read again", **to_builtins(reloaded))
        return reloaded

    def environ(self) -> dict[str, str]:
        # What another process finds has to fit into the memory that we have.
        return dataclasses.replace(self._settings, memory=self.config.memory).environ()

    async def refresh(self) -> None:
        async with self._reloading:
            await self._serve_models(self._settings)

    async def _serve_models(self, settings: Config) -> None:
        known = self.catalog.configured
        found, missing = await to_thread.run_sync(lambda: (models(settings, known), unpulled(settings)))
        await self.catalog.replace(found, Finder(settings.places, settings), missing)

    def _model_at(self, name: str, path: Path) -> Model:
        return model_at(self._settings, name, path)

    def _slower(self, reading: Reading) -> float | None:
        """Unknown while it is us who keep the clocks low."""
        is_slowed = self.saver.is_slowing
        return self._slowdown.value(reading.at, reading.load, Clock.of(reading), is_slowed=is_slowed)

    def memory(self) -> MemoryStatus:
        return replace(self._loop.memory(), archived=folder.num_bytes(self.config.state_dir / folder.NAME))

    async def load(self, model: str, keep_alive_s: float | None) -> None:
        await self._loop.load(model, keep_alive_s)

    async def unload(self, model: str) -> None:
        await self._loop.unload(model)

    @property
    def batches(self) -> "Batches":
        return self._batches or self._start_batches()

    def _start_batches(self) -> "Batches":
        """When they are first asked for, or something is left to do: most daemons never see a batch."""
        from pilotlight.api.offline import Offline
        from pilotlight.batch.batches import Batches
        from pilotlight.batch.records import State
        from pilotlight.batch.run import Desk

        desk = Desk(Offline(self), self.notices, self.metrics.count_batch_line)
        batches = self._batches = Batches(self.config.state_dir, desk, self.config.server.body_limit)
        for state in State:
            self.metrics.show_batches(state.value, partial(batches.num_in, state))
        assert self._tasks is not None, "requests come in while we serve"
        self._tasks.start_soon(batches.run)
        return batches

    # --- life ---

    async def serve(self) -> None:
        """Start, serve, and stop in order when a signal comes."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await tasks.start(self._receive_signals, tasks)
            tasks.start_soon(self.power.run)
            tasks.start_soon(self._machine.listen, self._supply_changed)
            tasks.start_soon(self.saver.run)
            tasks.start_soon(self._loop.run)
            tasks.start_soon(self.pulls.run)
            tasks.start_soon(keep_tidy, self.config.state_dir, self._archive)
            if self._is_private:
                threading.Thread(target=self._end_with_stdin, daemon=True).start()
            elif (self.config.state_dir / "batches").exists():
                self._start_batches()
            tasks.start_soon(pressure.listen, self._press)
            for name in self.config.preload:
                tasks.start_soon(self._preload, name)
            self._announce()
            code = ExitCode.FAILED
            try:
                await self._server.serve(sockets=[self._sock])
                code = ExitCode.STOPPED
            finally:
                self._discovery.remove()
                leave_within(LEAVE_S, code)
                with anyio.CancelScope(shield=True):
                    await self._loop.stop_workers()
            tasks.cancel_scope.cancel()
        if self._batches is not None:
            self._batches.release()

    def _supply_changed(self) -> None:
        """Where nothing is loaded, nothing follows from it before the next request, which looks by itself."""
        if len(self._loop.pids()) > 1:
            self.power.look_once_settled()

    def _press(self, level: pressure.Level) -> None:
        self.power.press(level)
        self._loop.press(level)

    async def _preload(self, model: str) -> None:
        try:
            model = (await self.catalog.find(model)).name
            await self._loop.load(model)
        except Error as error:
            if self.catalog.known(model) is not None:
                self.notices.raise_(f"not_loaded_{model}", Severity.ERROR, error.message)
            else:  # nothing would ever clear the notice
                log.warning("not loaded at start", model=model, reason=error.message)

    def _announce(self) -> None:
        """Say where we are. The socket listens already: who connects now is served in a moment."""
        url = url_of(self._sock)
        try:
            if not self._is_private:
                self._discovery.write(url)
        except OSError as exc:
            text = f"this daemon cannot be found by its state directory: {exc.strerror or exc}"
            self.notices.raise_("not_announced", Severity.WARNING, text)
        self.is_ready = True
        say(f"pilotlight {__version__} ready at {url}")

    def _end_with_stdin(self) -> None:
        """Whoever has started us may end without a word. A second signal would force us."""
        os.read(sys.stdin.fileno(), 1)
        if not self._is_draining:
            os.kill(os.getpid(), signal.SIGTERM)

    async def _receive_signals(self, tasks: TaskGroup, *, task_status: TaskStatus[None]) -> None:
        with hearing(*ENDING, *RELOADING) as signals:
            task_status.started()
            async for number in signals:
                log.info("signal received", signal=number.name)
                if number not in ENDING and not self._terminal.is_gone:
                    tasks.start_soon(self._reload_or_tell)
                    continue
                if number not in ENDING and self._is_draining:
                    continue  # the end of a terminal is told by its shell and by the system
                if not self.is_ready:
                    self._force()
                self.is_ready, self._is_draining = False, True
                tasks.start_soon(self._drain)

    async def _reload_or_tell(self) -> None:
        """Nobody waits for an answer to a signal."""
        try:
            await self.reload()
        except ConfigError as error:
            text = f"the settings were not read again, and nothing has changed: {error.message}"
            self.notices.raise_(NOT_RELOADED, Severity.ERROR, text)

    async def _drain(self) -> None:
        """Cancelled once everything in flight has finished."""
        # First: who has our port next must not be taken for us, and sent the key.
        self._discovery.remove()
        self._loop.shut_down()
        self.gate.close()
        self.pulls.stop()
        if self._batches is not None:
            self._batches.stop()
        self._server.stop()
        await anyio.sleep(self.config.server.drain_s)
        self._loop.end_drain()

    def _force(self) -> None:
        """The second signal: whoever sent it does not want to wait for anything."""
        self._loop.kill_workers()
        self._discovery.remove()
        os._exit(ExitCode.FORCED)


def _run(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop where there is one."""

    async def run() -> None:
        await main

    anyio.run(run, backend_options={"use_uvloop": sys.platform != "win32"})


def _policy(config: Config) -> Policy:
    rules = rules_of(config.policy.preset, config.rules)
    gives_way = config.policy.background_priority == "low"
    return Policy(rules, hysteresis_of(config.policy.hysteresis), gives_way)
