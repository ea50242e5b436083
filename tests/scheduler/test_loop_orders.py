"""What the policy orders, carried out on workers."""

import pytest
from anyio import Event, create_task_group
from anyio import wait_all_tasks_blocked as settle
from fake_effects import request
from fake_worker import model
from loop_bench import Bench, done, read
from msgspec.structs import replace

from pilotlight.core import Accepted, Chunk, RequestClass
from pilotlight.errors import BackgroundBlocked, ContextOverflow, ThermalCritical
from pilotlight.policy.limits import EFFICIENT, Threads
from pilotlight.power.saver import Wish
from pilotlight.registry.budget import Room
from pilotlight.scheduler.gate import Orders
from pilotlight.worker.priority import Priority
from pilotlight.worker.protocol import (
    Admitted,
    Delta,
    Hold,
    Measured,
    MeasureThreads,
    Paused,
    Refused,
    SetThreads,
)
from pilotlight.worker.protocol import Threads as SaidThreads

RESTING = Orders(held={RequestClass.BACKGROUND: "on battery", RequestClass.BATCH: "on battery"})


async def test_what_yields_rests_while_the_policy_says_so(bench: Bench) -> None:
    """On whatever worker it runs; a worker that is loaded meanwhile is told, too."""
    await bench.running("r1", request_class=RequestClass.BATCH)
    bench.loop.obey(RESTING)
    await settle()
    bench.loop.obey(Orders())
    await settle()
    assert held(bench) == [True, False]


async def test_a_class_rests_though_another_may_go_on(bench: Bench) -> None:
    """But not beside one that may: a worker holds all that yields, or nothing. What rests needs no clocks."""
    batch, number = await bench.running("r1", request_class=RequestClass.BATCH)
    eco = frozenset({RequestClass.BACKGROUND})
    bench.loop.obey(Orders(held={RequestClass.BATCH: "on battery"}, eco=eco))
    await settle()
    assert (held(bench), bench.wishes[-1]) == ([True], Wish.REST)
    bench.worker.tell(Paused(1))
    standing = bench.loop.standing(request("r1", request_class=RequestClass.BATCH))
    assert standing == "resting: on battery"
    _, other = await bench.running("r2", request_class=RequestClass.BACKGROUND)
    assert (held(bench), bench.wishes[-1]) == ([True, False], Wish.HOLD)
    bench.worker.say(done(other))
    await settle()
    assert held(bench) == [True, False, True]
    bench.worker.say(done(number))
    await settle()
    assert held(bench) == [True, False, True, False], "nothing is left of the class that rests"
    batch.close()


async def test_what_people_wait_for_to_end_rests_no_more(bench: Bench) -> None:
    """Though the policy has it rest: a model that is to be unloaded, or to make room, would never go."""
    answer, number = await bench.running("r1", request_class=RequestClass.BATCH)
    bench.loop.obey(RESTING)
    await settle()
    assert held(bench) == [True]
    async with create_task_group() as tasks:
        tasks.start_soon(bench.loop.unload, "a")
        await settle()
        assert held(bench) == [True, False]
        bench.worker.say(Admitted(number, 3), done(number))
        await read(answer)


@pytest.mark.parametrize(
    ("resting", "other"),
    [(RequestClass.BATCH, RequestClass.BACKGROUND), (RequestClass.BACKGROUND, RequestClass.BATCH)],
)
async def test_what_rests_keeps_no_place_from_what_may_go_on(
    bench: Bench, resting: RequestClass, other: RequestClass
) -> None:
    """It goes on until there is one; still not while the machine cools, or for more of its own class."""
    _, number = await bench.running("r1", request_class=resting)
    await bench.running("r2", request_class=resting)
    bench.loop.obey(Orders(held={resting: "on battery"}))
    like_it = bench.loop.submit(request("r3", request_class=resting))
    await settle()
    assert held(bench) == [True]
    like_it.close()
    bench.loop.submit(request("r4", request_class=other))
    await settle()
    assert held(bench) == [True, False]
    bench.loop.rest(True)
    await settle()
    bench.loop.rest(False)
    await settle()
    assert held(bench)[2:] == [True, False]
    bench.worker.say(done(number))
    await settle()
    assert bench.worker.generates[-1].request_class is other
    assert len(held(bench)) == 4


async def test_what_has_rested_is_judged_by_the_memory_of_now(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs may have come and gone, and nobody has looked since."""
    bench.loop.obey(RESTING)
    bench.loop.submit(request("r1", request_class=RequestClass.BATCH))
    await settle()
    told: list[Room] = []
    monkeypatch.setattr(bench.loop._scheduler, "on_budget", told.append)
    bench.loop.obey(Orders())
    await settle()
    assert told == [bench.loop._books.room()] * 2, "before it is loaded, and once it is"


async def test_a_removed_model_that_nobody_waits_for_rests_on(bench: Bench) -> None:
    """It ends what it runs when that may go on: it is in nobody's way."""
    await bench.running("r1", request_class=RequestClass.BATCH)
    bench.loop.obey(RESTING)
    await bench.replace(model("b"))
    assert held(bench) == [True]


async def test_what_was_computed_is_not_ended_for_a_pause(bench: Bench) -> None:
    """Beside a class that may go on it never was paused, however long its own is to rest."""
    answer, number = await bench.running("r1", request_class=RequestClass.BACKGROUND)
    _, other = await bench.running("r2", request_class=RequestClass.BATCH)
    overdue = Orders(
        held={RequestClass.BACKGROUND: "on battery"},
        refusals={RequestClass.BACKGROUND: BackgroundBlocked("it was paused for 60 s")},
    )
    bench.loop.obey(overdue)
    await settle()
    assert bench.worker.cancels == []
    bench.worker.say(done(other))
    await settle()
    bench.loop.obey(overdue)
    await settle()
    assert bench.worker.cancels == [number]
    with pytest.raises(BackgroundBlocked, match="it was paused"):
        await read(answer)


async def test_who_waits_behind_what_rests_is_told_why_and_no_time(bench: Bench) -> None:
    """Nobody knows when the plug comes back; who does not yield waits for no plug."""
    _, number = await bench.running("r1", request_class=RequestClass.BACKGROUND)
    await bench.running("r2", request_class=RequestClass.BACKGROUND)
    bench.worker.say(Admitted(number, 3), done(number))
    await bench.running("r3", request_class=RequestClass.BACKGROUND)
    waiting = request("r4", request_class=RequestClass.BACKGROUND)
    bench.loop.submit(waiting)
    await settle()
    assert bench.loop.standing(waiting) == "waiting, position 1, about 0 s"
    bench.loop.obey(RESTING)
    await settle()
    assert bench.loop.standing(waiting) == "waiting, position 1; resting: on battery"
    bench.loop.obey(Orders())
    await settle()
    assert bench.loop.standing(waiting) == "waiting, position 1, about 0 s"


async def test_who_rests_is_passed_by_who_may_go_on(bench: Bench) -> None:
    """In the same worker, which computes: each hears its own."""
    _, number = await bench.running("r1", request_class=RequestClass.BATCH)
    await bench.running("r2", request_class=RequestClass.BATCH)
    bench.loop.obey(Orders(held={RequestClass.BACKGROUND: "on battery"}))
    resting = request("r3", request_class=RequestClass.BACKGROUND)
    passing = request("r4", request_class=RequestClass.BATCH)
    for waiting in (resting, passing):
        bench.loop.submit(waiting)
    await settle()
    assert bench.loop.standing(resting) == "waiting, position 1; resting: on battery"
    assert bench.loop.standing(passing) == "waiting, position 1"
    bench.worker.say(done(number))
    await settle()
    assert bench.worker.generates[-1].request_class is RequestClass.BATCH


async def test_nothing_is_loaded_for_what_rests(bench: Bench) -> None:
    """Who waits is told why."""
    bench.loop.obey(RESTING)
    waiting = request("r1", request_class=RequestClass.BATCH)
    bench.loop.submit(waiting)
    await settle()
    assert bench.loader.models == []
    assert bench.loop.standing(waiting) == "waiting for the model to load, position 1; resting: on battery"
    bench.loop.obey(Orders())
    await settle()
    assert bench.loader.models == [model("a")]


async def test_what_a_worker_refuses_says_nothing_of_how_long_others_take(bench: Bench) -> None:
    """It ran for no time at all."""
    _, number = await bench.running("r1")
    await bench.running("r2")
    bench.worker.say(Refused(number, ContextOverflow.__name__, "too long", "messages"))
    await bench.running("r3")
    waiting = request("r4")
    bench.loop.submit(waiting)
    await settle()
    assert bench.loop.standing(waiting) == "waiting, position 1"


def held(bench: Bench) -> list[bool]:
    """What its worker was told."""
    return [one.is_held for one in bench.worker.sent if isinstance(one, Hold)]


def threads_sent(bench: Bench) -> list[int]:
    return [one.threads for one in bench.worker.sent if isinstance(one, SetThreads)]


async def test_threads_are_those_that_the_policy_leaves_to_what_runs(bench: Bench) -> None:
    """Also for answers that run already, and all of them once it limits no more; what waits has no say."""
    orders = Orders(threads={RequestClass.INTERACTIVE: Threads(4), RequestClass.BATCH: Threads(part=0.25)})
    batch, _ = await bench.running("r1", request_class=RequestClass.BATCH)
    bench.loop.obey(orders)
    await settle()
    answer, _ = await bench.running("r2")
    await bench.running("r3", is_overridden=True)
    bench.loop.obey(Orders())
    await settle()
    assert threads_sent(bench) == [2, 4, 8]
    bench.loop.obey(replace(orders, threads_overridden=Threads(3)))
    await settle()
    assert threads_sent(bench)[3:] == [4]
    batch.close()
    answer.close()
    await settle()
    assert threads_sent(bench)[4:] == [3]


async def test_an_answer_alone_gets_as_many_threads_as_are_enough(bench: Bench) -> None:
    """If its model says so, or a rule; prompts get all."""
    await bench.replace(replace(model("a"), is_efficient=True))
    bench.loader.enough = 3
    await bench.running("r1", is_overridden=True)
    assert bench.loader.measured_at_load == [True]
    assert bench.worker.sent[-1] == SetThreads(3, 8)
    await bench.replace(model("a"))
    bench.loop.obey(Orders(threads={RequestClass.INTERACTIVE: EFFICIENT}))
    await bench.running("r2")
    assert bench.worker.sent[-1] == SetThreads(8, 8), "the one that overrides is limited least"
    bench.loop.obey(Orders(threads_overridden=Threads(5)))
    await settle()
    assert bench.worker.sent[-1] == SetThreads(8, 8)


async def test_what_is_enough_is_found_out_when_a_rule_wants_to_know(bench: Bench) -> None:
    """While its worker runs nothing."""
    answer, number = await bench.running("r1")
    bench.loop.obey(Orders(threads={RequestClass.INTERACTIVE: EFFICIENT}))
    await settle()
    assert MeasureThreads() not in bench.worker.sent
    bench.worker.say(Admitted(number, 3), done(number))
    await read(answer)
    await settle()
    assert bench.worker.sent[-1] == MeasureThreads()
    bench.worker.tell(Measured(3))
    await settle()
    assert bench.loop.status()[0].enough_threads == 3
    await bench.running("r2")
    assert bench.worker.sent[-1] == SetThreads(3, 8)


async def test_what_a_worker_computes_with_is_what_it_says(bench: Bench) -> None:
    """Not what it was told."""
    await bench.running("r1")
    assert bench.loop.status()[0].threads == 8
    bench.loop.obey(Orders(threads={RequestClass.INTERACTIVE: Threads(2)}))
    await settle()
    assert bench.loop.status()[0].threads == 8
    bench.worker.tell(SaidThreads(2, 4))
    assert bench.loop.status()[0].threads == 2
    assert bench.books["a"].prompt_threads == 4
    bench.worker.die()
    await settle()
    await bench.running("r2")
    assert (bench.books["a"].threads, bench.books["a"].prompt_threads) == (8, 8), "of the next one, all do"


async def test_what_the_policy_ends_is_told_why_and_frees_its_place(bench: Bench) -> None:
    """After what it has said already; requests of other classes go on."""
    answer, number = await bench.running("r1")
    other, _ = await bench.running("r2", request_class=RequestClass.BATCH)
    bench.worker.say(Admitted(number, 3), Delta(number, 0, "so far", 2))
    bench.loop.obey(Orders(refusals={RequestClass.INTERACTIVE: ThermalCritical("too hot")}))
    await settle()
    assert await anext(answer) == [Accepted(3), Chunk(0, "so far", 2)]
    with pytest.raises(ThermalCritical):
        await read(answer)
    assert bench.worker.cancels == [number]
    other.close()


async def test_what_waits_is_refused_with_what_the_policy_ends(bench: Bench) -> None:
    """It does not run for a second in the place of that; who waits with another class does, and a load is
    none."""
    running = [await bench.running(id) for id in ("r1", "r2")]
    waiting = [bench.loop.submit(request(id, model)) for id, model in (("r3", "a"), ("r4", "b"))]
    other = bench.loop.submit(request("r5", request_class=RequestClass.BATCH))
    bench.loader.may_end = Event()
    await settle()
    bench.loop.obey(Orders(refusals={RequestClass.INTERACTIVE: ThermalCritical("too hot")}))
    await settle()
    worker = bench.loader.workers[0]
    assert [one.request_class for one in worker.generates[2:]] == [RequestClass.BATCH]
    assert worker.cancels == [number for _, number in running]
    for answer in (*(answer for answer, _ in running), *waiting):
        with pytest.raises(ThermalCritical):
            await read(answer)
    other.close()


async def test_a_rest_holds_what_yields_in_every_worker(bench: Bench) -> None:
    """And is told once, not with every reading."""
    _, number = await bench.running("1", request_class=RequestClass.BACKGROUND)
    for is_resting in (True, True, False):
        bench.loop.rest(is_resting)
        await settle()
    assert [one.is_held for one in bench.worker.sent if isinstance(one, Hold)] == [True, False]
    bench.worker.say(Delta(number, 0, "a", 3))
    assert (bench.loop.has_yielding, bench.loop.is_answering) == (True, False)
    assert bench.loop.num_yielding_tokens == 3


async def test_a_worker_gives_way_while_it_only_has_what_yields(bench: Bench) -> None:
    """Until somebody waits for it; and not when it has nothing."""
    _, first = await bench.running("1", request_class=RequestClass.BACKGROUND)
    assert bench.worker.priorities == [Priority.LOW]
    _, second = await bench.running("2")
    assert bench.worker.priorities == [Priority.LOW, Priority.NORMAL]
    bench.worker.say(done(second))
    await settle()
    assert bench.worker.priorities[2:] == [Priority.LOW]
    bench.worker.say(done(first))
    await settle()
    assert bench.worker.priorities[3:] == [Priority.NORMAL]
    assert bench.loop.status()[0].priority == "normal"


async def test_low_clocks_are_for_what_a_rule_says_and_nothing_beside_it(bench: Bench) -> None:
    """A worker that has it is told to save energy, and the machine; not with other classes at work."""
    bench.loop.obey(Orders(eco=frozenset({RequestClass.BACKGROUND})))
    _, first = await bench.running("1", request_class=RequestClass.BACKGROUND)
    assert (bench.worker.priorities, bench.wishes[-1]) == ([Priority.ECO], Wish.HOLD)
    _, second = await bench.running("2", request_class=RequestClass.BATCH)
    assert (bench.worker.priorities[1:], bench.wishes[-1]) == ([Priority.LOW], Wish.RELEASE)
    bench.worker.say(done(second))
    await settle()
    assert bench.wishes[-1] is Wish.HOLD
    bench.worker.say(done(first))
    await settle()
    assert (bench.worker.priorities[-1], bench.wishes[-1]) == (Priority.NORMAL, Wish.REST)


async def test_interactive_work_is_no_work_that_yields(bench: Bench) -> None:
    """Its tokens are not counted, and a rest is none of its business."""
    _, number = await bench.running("1")
    bench.worker.say(Delta(number, 0, "a", 3))
    assert (bench.loop.has_yielding, bench.loop.is_answering) == (False, True)
    assert bench.loop.num_yielding_tokens == 0
