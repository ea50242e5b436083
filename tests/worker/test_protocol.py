"""Messages to bytes and back."""

import struct
from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pilotlight.core import Capabilities, FinishReason, Prompt, RequestClass, Sampling, WorkerInfo
from pilotlight.worker.protocol import (
    MAX_FRAME_BYTES,
    Admitted,
    Cancel,
    Delta,
    Done,
    FirstDelta,
    FrameError,
    Generate,
    Hello,
    Hold,
    Inspect,
    Load,
    LoadFailed,
    Measured,
    MeasureThreads,
    Paused,
    Progress,
    Ready,
    Refused,
    SetThreads,
    Splitter,
    State,
    Step,
    Threads,
    ToDaemon,
    ToWorker,
    Trim,
    decode_to_daemon,
    decode_to_worker,
    encode,
)

INFO = WorkerInfo(1, "echo", "1", "full", 2, 3, 4, 5, 6, "seven", 8, 9, True, 1.5, Capabilities(("seed",)))

TO_WORKER: list[ToWorker] = [
    Load("/models/é.gguf", "full", 1, 2, 3, "{{ messages }}"),
    Load("m", "plain", 0, 0, 0),
    Generate(
        7,
        Prompt(
            messages=({"role": "user", "content": [{"type": "text", "text": "é\0"}]},),
            template_kwargs={"a": None},
        ),
        Sampling(temperature=0.5, top_k=3, logit_bias=((1, -100.0), (2, 0.5)), seed=-(2**63)),
        5,
        ("a", "b"),
        2,
        True,
        False,
    ),
    Generate(8, Prompt(text="hi"), Sampling(), None, (), 1, False, True),
    Generate(9, Prompt(tokens=(1, 2, 3)), Sampling(seed=2**63 - 1), 1, (), 1, False, True),
    Generate(9, Prompt(text=""), Sampling(), 1, (), 1, False, True, RequestClass.BATCH),
    Hold(True),
    Cancel(7),
    SetThreads(2, 4),
    MeasureThreads(),
    Trim(),
    Inspect(),
]

TO_DAEMON: list[ToDaemon] = [
    Hello(1, 2),
    Progress(0.25),
    Progress(1.0, is_measuring=True),
    Ready(INFO),
    LoadFailed("no such file", missing=True),
    Paused(3),
    Threads(2, 4),
    Measured(3),
    Step(()),
    Step(
        (
            Admitted(1, 2),
            Refused(1, "BadRequest", "no", "prompt"),
            FirstDelta(1, 0, "a", 1, 2),
            Delta(1, 0, "é😀", 3),
            Done(1, 0, FinishReason.LENGTH, 4, 5),
        )
    ),
    State(1, 2, 3, 4, 5, "slot 3 is lost"),
]


def body(message: ToWorker | ToDaemon) -> bytes:
    (body,) = Splitter().feed(encode(message))
    return body


@pytest.mark.parametrize("message", TO_WORKER, ids=lambda message: type(message).__name__)
def test_a_message_to_a_worker_arrives_as_it_was_sent(message: ToWorker) -> None:
    """Every kind, with all its fields."""
    assert decode_to_worker(body(message)) == message


@pytest.mark.parametrize("message", TO_DAEMON, ids=lambda message: type(message).__name__)
def test_a_message_to_the_daemon_arrives_as_it_was_sent(message: ToDaemon) -> None:
    """Every kind, with all its fields."""
    assert decode_to_daemon(body(message)) == message


def test_messages_of_one_direction_are_not_taken_in_the_other() -> None:
    """A peer that confuses them is broken."""
    with pytest.raises(FrameError, match="bad message from the daemon"):
        decode_to_worker(body(Hello(1, 2)))
    with pytest.raises(FrameError, match="bad message from the worker"):
        decode_to_daemon(body(Inspect()))


@example(b"\x91\xa7\x00\x00\x00\x00\x00\x00\x80")
@given(st.binary(max_size=40))
def test_bytes_that_are_no_message_are_an_error_and_no_crash(raw: bytes) -> None:
    """Whatever they are."""
    for decode in (decode_to_worker, decode_to_daemon):
        try:
            decode(raw)
        except FrameError:
            continue


@given(st.lists(st.integers(0, 200)))
def test_a_stream_may_be_cut_anywhere(cuts: list[int]) -> None:
    """Within a length, within a body, between frames."""
    stream = b"".join(map(encode, TO_DAEMON))
    at = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    splitter = Splitter()
    bodies = [body for start, end in pairwise(at) for body in splitter.feed(stream[start:end])]
    assert [decode_to_daemon(body) for body in bodies] == TO_DAEMON


def test_a_frame_comes_out_with_its_last_byte() -> None:
    """Not before, and not a byte of the next one later."""
    frames = [encode(message) for message in TO_WORKER]
    ends = list(accumulate(map(len, frames)))
    splitter, stream = Splitter(), b"".join(frames)
    complete = [at + 1 for at in range(len(stream)) if splitter.feed(stream[at : at + 1])]
    assert complete == ends


def test_an_impossible_length_is_refused_at_once() -> None:
    """Before anybody waits for a gigabyte."""
    with pytest.raises(FrameError, match=f"at most {MAX_FRAME_BYTES}"):
        Splitter().feed(struct.pack("<I", MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize("value", [2**70, "\ud800"])
def test_what_msgpack_cannot_carry_is_refused(value: object) -> None:
    """Free JSON, like the template's variables, may hold it."""
    prompt = Prompt(text="hi", template_kwargs={"x": value})
    with pytest.raises(FrameError, match="Generate cannot be sent"):
        encode(Generate(1, prompt, Sampling(), None, (), 1, False, True))
