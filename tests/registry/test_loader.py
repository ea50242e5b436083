"""From a model to a loaded worker, against real child processes."""

import sys
import threading
from functools import partial
from pathlib import Path

import anyio
import gguf
import psutil
import pytest

from gguf_factory import write_tiny_gguf
from mappings import bytes_held
from pilotlight.core import Archive, Cost, Model, Severity
from pilotlight.errors import Unreachable, WorkerFailed
from pilotlight.notices import Notices
from pilotlight.power.clocks import Clock, Clocks
from pilotlight.power.reading import Reading
from pilotlight.registry import ladder
from pilotlight.registry import loader as loader_module
from pilotlight.registry.cost import repacked_kinds
from pilotlight.registry.costs import Costs
from pilotlight.registry.enough import Enough
from pilotlight.registry.ladder import MODES, Ladder
from pilotlight.registry.loader import Loader
from pilotlight.runtimes.capabilities import CAPABILITIES
from pilotlight.worker.protocol import Progress
from serving import until
from virtual_clock import run_virtual

LOAD_S = 20.0


class Bench:
    """A loader of echo models in an empty state directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ladder = Ladder(folder / "state")
        self.costs = Costs(folder / "state", self.ladder)
        self.notices = Notices(clock=lambda: 0.0)

    async def load(self, knobs: str = "", load_s: float = LOAD_S) -> str:
        """The mode it was loaded in."""
        path = self.folder / "echo.toml"
        path.write_text(knobs)
        loader = Loader(self.ladder, self.costs, self.notices, load_s)
        worker = await loader.load(Model("talk", path, runtime="echo"), lambda _: None)
        await worker.stop()
        assert worker.info is not None
        return worker.info.mode

    def codes(self) -> list[str]:
        return [notice.code for notice in self.notices]


class Unwanted(Enough):
    """Breaks a load off when its worker is ready, and has said how many threads are enough."""

    def __init__(self, state_dir: Path, scope: anyio.CancelScope) -> None:
        super().__init__(state_dir, Clocks(Reading))
        self.num_workers = 0
        self._scope = scope

    def answer(self, model: str, threads: int) -> Clock | None:
        self.num_workers += 1
        self._scope.cancel()
        return None


class Hanging(Costs):
    """The file is on a disk that does not answer before it `may_end`."""

    def __init__(self, state_dir: Path, modes: Ladder) -> None:
        super().__init__(state_dir, modes)
        self.has_begun = anyio.Event()
        self.may_end = threading.Event()
        self.num_looks = 0

    def estimate(self, model: Model) -> Cost:
        self.num_looks += 1
        anyio.from_thread.run_sync(self.has_begun.set)
        self.may_end.wait()
        raise OSError("the disk is gone")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_model_is_loaded_in_the_fastest_mode(bench: Bench) -> None:
    """Nothing to remember, nothing to tell."""
    assert await bench.load() == "full"
    assert bench.ladder.outcomes() == []
    assert bench.codes() == []


async def test_a_crash_leads_to_the_next_mode(bench: Bench) -> None:
    """Which is remembered, and told with its cost."""
    assert await bench.load('crash_modes = ["full"]\ncrash_signal = "SIGILL"') == "no-extra-buffers"
    outcome = bench.ladder.outcome("echo")
    assert outcome is not None
    assert outcome.reason == "full: SIGILL while loading talk"
    (notice,) = bench.notices
    assert (notice.code, notice.severity) == ("safe_mode_echo", Severity.WARNING)
    assert "1.4 times slower" in notice.text
    assert "pilotlight doctor" in notice.text


async def test_each_process_is_told_before_it_loads(bench: Bench) -> None:
    """One that crashed is followed by another."""
    path = bench.folder / "echo.toml"
    path.write_text('crash_modes = ["full"]\ncrash_signal = "SIGILL"')
    loader = Loader(bench.ladder, bench.costs, bench.notices, LOAD_S)
    told: list[int | Progress] = []
    worker = await loader.load(Model("talk", path, runtime="echo"), told.append, spawned=told.append)
    await worker.stop()
    pids = [one for one in told if isinstance(one, int)]
    assert len(set(pids)) == 2
    assert (told[0], pids[1]) == (pids[0], worker.pid)


async def test_a_mode_that_crashed_is_not_tried_again(bench: Bench) -> None:
    """Though it would work now; the notice stands."""
    bench.ladder.remember("echo", "plain", "crash")
    assert await bench.load() == "plain"
    assert bench.codes() == ["safe_mode_echo"]


async def test_the_notice_goes_when_the_outcome_is_forgotten(bench: Bench) -> None:
    """The fast mode works again."""
    bench.ladder.remember("echo", "plain", "crash")
    await bench.load()
    bench.ladder.forget()
    assert await bench.load() == "full"
    assert bench.codes() == []


async def test_a_model_that_crashes_in_every_mode_has_failed(bench: Bench) -> None:
    """That is the file's fault, and nothing is remembered of it."""
    with pytest.raises(WorkerFailed, match=r"in every mode \(full: SIGSEGV, no-extra-buffers: SIGSEGV"):
        await bench.load(f"crash_modes = {list(MODES['echo'])}")
    assert bench.ladder.outcomes() == []


async def test_a_worker_killed_by_others_is_not_a_crash(bench: Bench) -> None:
    """Out of memory, say: a safer mode would need no less."""
    with pytest.raises(WorkerFailed, match="died of SIGKILL while loading"):
        await bench.load('crash_modes = ["full"]\ncrash_signal = "SIGKILL"')
    assert bench.ladder.outcomes() == []


async def test_a_refused_model_has_failed_for_its_reason(bench: Bench) -> None:
    """In one try."""
    with pytest.raises(WorkerFailed, match="talk: no weights here"):
        await bench.load('load_error = "no weights here"')


async def test_a_load_that_never_ends_has_failed(bench: Bench) -> None:
    """Its worker is gone."""
    with pytest.raises(WorkerFailed, match="did not answer in time"):
        await bench.load("load_s = 1000.0", load_s=0.01)


async def test_what_a_loaded_model_holds_is_recorded(bench: Bench) -> None:
    """And known from then on."""
    await bench.load()
    cost = bench.costs.known(Model("talk", bench.folder / "echo.toml", runtime="echo"))
    assert cost is not None
    assert cost.is_measured
    assert cost.at_load.private > 5_000_000


async def test_a_load_that_nobody_wants_once_it_is_done_leaves_no_process(bench: Bench) -> None:
    """Its worker was ready, and nobody owned it yet."""
    (bench.folder / "echo.toml").touch()
    others = psutil.Process().children()
    with anyio.CancelScope() as scope:
        enough = Unwanted(bench.folder / "state", scope)
        loader = Loader(bench.ladder, bench.costs, bench.notices, LOAD_S, enough=enough)
        model = Model("talk", bench.folder / "echo.toml", "echo", capabilities=CAPABILITIES["echo"])
        await loader.load(model, lambda _: None, measures_threads=True)
    assert enough.num_workers == 1
    assert scope.cancelled_caught
    assert psutil.Process().children() == others


@pytest.mark.skipif(
    sys.platform != "linux" or "Q4_0" not in repacked_kinds(ladder.features()),
    reason="only Linux lets go of files, and this processor takes weights as they are",
)
async def test_a_file_is_let_go_of_once_it_is_repacked(bench: Bench) -> None:
    """The worker holds its own copy, and of the file what is looked up."""
    kind = gguf.GGMLQuantizationType.Q4_0
    path = write_tiny_gguf(bench.folder / "tiny.gguf", width=512, layers=4, kind=kind)
    loader = Loader(bench.ladder, bench.costs, bench.notices, LOAD_S)
    worker = await loader.load(Model("tiny", path), lambda _: None)
    try:
        held = bytes_held(worker.pid, path)
    finally:
        await worker.stop()
    assert 0 < held < 1.5e6, "of 5 MB"


async def test_a_hostile_file_starts_no_worker(bench: Bench) -> None:
    """Native code never sees it."""
    path = bench.folder / "bad.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 16)
    loader = Loader(bench.ladder, bench.costs, bench.notices, LOAD_S)
    with pytest.raises(WorkerFailed, match=r"bad: bad.gguf: 18446744073709551615 tensors, more than"):
        await loader.load(Model("bad", path), lambda _: pytest.fail("a worker was started"))


@pytest.mark.parametrize("is_load", [False, True], ids=["look", "load"])
async def test_who_leaves_does_not_wait_for_a_file_that_hangs(bench: Bench, is_load: bool) -> None:
    """An unload would wait with it, and the daemon's end."""
    costs = Hanging(bench.folder, bench.ladder)
    loader = Loader(bench.ladder, costs, bench.notices, LOAD_S)
    talk = Model("talk", bench.folder / "echo.toml", runtime="echo")
    async with anyio.create_task_group() as tasks:
        if is_load:
            tasks.start_soon(loader.load, talk, lambda _: None)
        else:
            tasks.start_soon(loader.look_at, talk)
        await costs.has_begun.wait()
        tasks.cancel_scope.cancel()
    costs.may_end.set()


async def test_a_load_can_be_broken_off_wherever_its_file_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network drive may still know the size of a file that it cannot read any more."""
    has_begun, may_end = threading.Event(), threading.Event()

    def hang(model: Model) -> str:
        has_begun.set()
        may_end.wait(LOAD_S)
        return ""

    monkeypatch.setattr(loader_module, "digest_of", hang)
    loader = Loader(bench.ladder, bench.costs, bench.notices, LOAD_S, Archive(str(bench.folder), 2**20, 60.0))
    (bench.folder / "echo.toml").touch()
    pids: list[int] = []
    async with anyio.create_task_group() as tasks:
        talk = Model("talk", bench.folder / "echo.toml", runtime="echo")
        tasks.start_soon(partial(loader.load, talk, lambda _: None, spawned=pids.append))
        assert await anyio.to_thread.run_sync(has_begun.wait, LOAD_S)
        tasks.cancel_scope.cancel()
    may_end.set()
    assert not any(map(psutil.pid_exists, pids))


async def test_what_is_only_useful_to_know_keeps_no_model_from_being_loaded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where to keep its conversations, say, while its disk is too busy to tell."""
    monkeypatch.setattr(loader_module, "LOOK_S", 0.5)
    may_end = threading.Event()
    monkeypatch.setattr(loader_module, "digest_of", lambda model: str(may_end.wait(LOAD_S)))
    loader = Loader(bench.ladder, bench.costs, bench.notices, LOAD_S, Archive(str(bench.folder), 2**20, 60.0))
    (bench.folder / "echo.toml").touch()
    worker = await loader.load(Model("talk", bench.folder / "echo.toml", runtime="echo"), lambda _: None)
    may_end.set()
    await worker.stop()


def test_a_load_waits_for_no_file_that_hangs(bench: Bench) -> None:
    """Nor is one thread after another left with it; once the disk is back, it is looked at again."""

    async def main() -> None:
        costs = Hanging(bench.folder, bench.ladder)
        loader = Loader(bench.ladder, costs, bench.notices, LOAD_S)
        talk = Model("talk", bench.folder / "none", runtime="echo")
        try:
            for _ in range(3):
                with pytest.raises(Unreachable, match="could not be looked at within 90 s"):
                    await loader.load(talk, lambda _: None)
            assert (costs.num_looks, anyio.current_time()) == (1, 270)
        finally:
            costs.may_end.set()
        assert await anyio.to_thread.run_sync(until, lambda: not loader._looking)
        await loader.look_at(talk)
        assert costs.num_looks == 2

    run_virtual(main)


async def test_a_link_to_itself_is_told_by_the_worker(bench: Bench) -> None:
    """As every path that leads nowhere."""
    path = bench.folder / "loop.gguf"
    path.symlink_to(path)
    loader = Loader(bench.ladder, bench.costs, bench.notices, LOAD_S)
    await loader.look_at(Model("loop", path))
    with pytest.raises(WorkerFailed, match="does not exist"):
        await loader.load(Model("loop", path), lambda _: None)


async def test_a_file_that_became_a_link_to_itself_is_loaded_all_the_same(bench: Bench) -> None:
    """Its worker has read it before; what it holds is not recorded."""
    path = bench.folder / "echo.toml"
    path.touch()
    loader = Loader(bench.ladder, bench.costs, bench.notices, LOAD_S)

    def break_it(_: Progress) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(path)

    worker = await loader.load(Model("talk", path, runtime="echo"), break_it)
    await worker.stop()
