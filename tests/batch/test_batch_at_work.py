"""One batch at work: what is tried again, what is waited for, and that each line is answered once."""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from fake_inference import CHAT, FakeInference, answers, line, write_lines

from pilotlight.batch import run as running
from pilotlight.batch.journal import Journal
from pilotlight.batch.lines import Input, scan
from pilotlight.batch.run import Desk, Run
from pilotlight.errors import BadRequest, Busy, Error, NoMemory, Unloaded, WorkerFailed
from pilotlight.notices import Notices

pytestmark = pytest.mark.anyio


class Bench:
    """A batch of some lines and what it is answered."""

    def __init__(self, folder: Path, num_lines: int, inference: FakeInference) -> None:
        self.path = write_lines(folder / "in", num_lines)
        self.output, self.errors = folder / "output", folder / "errors"
        self.num_lines = num_lines
        self.counted: Counter[str] = Counter()
        self.desk = Desk(inference, Notices(), lambda outcome: self.counted.update([outcome]))

    async def run(self) -> None:
        lines = Input(self.path, scan(self.path, CHAT, 4096), CHAT)
        with lines, Journal("batch_" + "0" * 24, self.num_lines, self.output, self.errors) as journal:
            await Run(self.desk, CHAT, lines, journal, lambda: True).run()

    @property
    def statuses(self) -> dict[str, int]:
        """By custom_id; one that is there twice fails."""
        entries = [*answers(self.output), *answers(self.errors)]
        found = {entry["custom_id"]: entry["response"]["status_code"] for entry in entries}
        assert len(found) == len(entries)
        return found


def fails(times: int, error: Error) -> Callable[[str], Error | None]:
    """The first tries of `r1` end so."""
    left = iter([error] * times)
    return lambda question: next(left, None) if question == "r1" else None


async def test_every_line_is_answered_by_its_own_question(tmp_path: Path) -> None:
    """With its custom_id; in order while there is one place."""
    inference = FakeInference()
    bench = Bench(tmp_path, 5, inference)
    await bench.run()
    assert [(one["custom_id"], one["response"]["body"]["text"]) for one in answers(bench.output)] == [
        (f"r{number}", f"r{number}") for number in range(5)
    ]
    assert (inference.num_at_once, bench.counted) == (1, Counter(completed=5))


async def test_as_many_lines_run_as_there_are_places(tmp_path: Path) -> None:
    """No more: the queue is for others."""
    inference = FakeInference(places=3, hold=anyio.Event())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Bench(tmp_path, 20, inference).run)
        with anyio.fail_after(20):
            await inference.until(3)
        assert inference.hold is not None
        inference.hold.set()
    assert inference.num_at_once == 3


async def test_what_is_wrong_with_a_line_is_its_answer(tmp_path: Path) -> None:
    """It is not tried again."""
    inference = FakeInference(fate=fails(1, BadRequest("temperature must be at most 2", param="temperature")))
    bench = Bench(tmp_path, 3, inference)
    await bench.run()
    (error,) = answers(bench.errors)
    assert (error["custom_id"], error["response"]["body"]["error"]["param"]) == ("r1", "temperature")
    assert (len(inference.asked), bench.counted) == (3, Counter(completed=2, failed=1))


@pytest.mark.parametrize("refusal", [Busy("full", retry_after_s=0), NoMemory("none", retry_after_s=0)])
async def test_what_passes_is_waited_for(tmp_path: Path, refusal: Error) -> None:
    """As often as it takes."""
    bench = Bench(tmp_path, 3, FakeInference(fate=fails(50, refusal)))
    await bench.run()
    assert bench.statuses == {"r0": 200, "r1": 200, "r2": 200}


@pytest.mark.parametrize("mishap", [WorkerFailed("it died"), Unloaded("stopped")])
@pytest.mark.parametrize(("times", "status"), [(2, 200), (3, 0)])
async def test_a_mishap_is_tried_twice_more(tmp_path: Path, mishap: Error, times: int, status: int) -> None:
    """Then it is the answer."""
    bench = Bench(tmp_path, 3, FakeInference(fate=fails(times, mishap)))
    await bench.run()
    assert bench.statuses == {"r0": 200, "r1": status or mishap.status, "r2": 200}


async def test_a_line_that_kills_workers_takes_no_other_along(tmp_path: Path) -> None:
    """Whatever runs beside it dies with it, and is answered when tried again alone."""
    inference = FakeInference(places=4)
    killed: set[str] = set()

    def fate(question: str) -> Error | None:
        if question == "r1":
            killed.update(inference.asked[-inference.num_running :])
            return WorkerFailed("segmentation fault")
        is_beside = question in killed and inference.asked.count(question) == 1
        return WorkerFailed("the worker is gone") if is_beside else None

    inference.fate = fate
    bench = Bench(tmp_path, 9, inference)
    await bench.run()
    assert bench.statuses == {f"r{number}": 200 for number in range(9)} | {"r1": 500}


async def test_a_model_that_cannot_run_is_not_tried_for_ever(tmp_path: Path) -> None:
    """After a few lines the rest is refused: loading it again and again costs power."""
    inference = FakeInference(fate=lambda question: WorkerFailed("the weights are sour"))
    bench = Bench(tmp_path, 100, inference)
    await bench.run()
    assert set(bench.statuses.values()) == {500}
    assert len(inference.asked) == running.MAX_LOST * running.MAX_TRIES


async def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is not made again, and a notice says why nothing goes on."""
    monkeypatch.setattr(running, "DISK_PAUSE_S", 0)
    inference = FakeInference()
    bench = Bench(tmp_path, 2, inference)
    add, seen = Journal.add, []

    def full_once(journal: Journal, entry: object) -> None:
        if not seen:
            seen.append(entry)
            raise OSError(28, "No space left on device")
        assert not isinstance(entry, str)
        add(journal, entry)  # type: ignore[arg-type]
        seen.append([notice.text for notice in bench.desk.notices])

    monkeypatch.setattr(Journal, "add", full_once)
    await bench.run()
    assert "No space left" in str(seen[1])
    assert list(bench.desk.notices) == []
    assert (inference.asked, bench.statuses) == (["r0", "r1"], {"r0": 200, "r1": 200})


class OneRoom(FakeInference):
    """Has room for one model at a time."""

    def __init__(self) -> None:
        super().__init__(places=4)
        self.loads: list[str] = []

    async def ask(self, endpoint: str, body: bytes, request_id: str) -> bytes:
        model = json.loads(body)["model"]
        if self.loads[-1:] != [model]:
            self.loads.append(model)
        return await super().ask(endpoint, body, request_id)


async def test_a_model_is_done_with_before_another_is_loaded(tmp_path: Path) -> None:
    """However they alternate in the file, and also when the batch is interrupted."""
    inference = OneRoom()
    bench = Bench(tmp_path, 40, inference)
    ask = {"messages": [{"role": "user", "content": "?"}]}
    bench.path.write_text("".join(line(f"r{n}", body=ask | {"model": "ab"[n % 2]}) for n in range(40)))
    for num_asked in (10, 30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.run)
            with anyio.fail_after(20):
                await inference.until_asked(num_asked)
            tasks.cancel_scope.cancel()
    await bench.run()
    assert inference.loads == ["a", "b"]
    assert bench.statuses == {f"r{number}": 200 for number in range(40)}


@pytest.mark.parametrize("seed", range(20))
async def test_cancelled_anywhere_it_is_whole_in_the_end(tmp_path: Path, seed: int) -> None:
    """Each line once, and no more lines run again than there are places."""
    chance = random.Random(seed)
    inference = FakeInference(places=4)
    bench = Bench(tmp_path, 30, inference)
    num_runs = 0
    while len(bench.statuses) < 30:
        with anyio.move_on_after(chance.random() * 0.01):
            await bench.run()
        num_runs += 1
    assert bench.statuses == {f"r{number}": 200 for number in range(30)}
    assert len(inference.asked) <= 30 + 4 * num_runs
