"""Bytes of tokens to text that may be shown."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from pilotlight.runtimes.text import TextStream

letters = st.text("abé€😀", max_size=30)
stops = st.lists(st.text("abé€😀", min_size=1, max_size=4), max_size=3).map(tuple)


def pieces(raw: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`raw`, cut at these places."""
    at = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    return [raw[start:end] for start, end in pairwise(at)]


def shown(stream: TextStream, raw: Sequence[bytes]) -> list[str]:
    """What comes out piece by piece, and at the end."""
    texts = []
    for piece in raw:
        texts.append(stream.push(piece))
        if stream.stopped:
            return texts
    return [*texts, stream.flush()]


def before_stop(text: str, stop: tuple[str, ...]) -> str:
    """The text before the stop string that is complete first, found letter by letter."""
    for end in range(len(text) + 1):
        starts = [end - len(one) for one in stop if text[:end].endswith(one)]
        if starts:
            return text[: min(starts)]
    return text


@given(text=letters, stop=stops, cuts=st.lists(st.integers(0, 90)))
@example(text="abc", stop=("bcd", "c"), cuts=[]).via("the longer one begins first and is never complete")
@example(text="abb", stop=("abba", "b"), cuts=[1, 2])
def test_text_ends_at_the_first_stop_string(text: str, stop: tuple[str, ...], cuts: list[int]) -> None:
    """However its bytes are cut into tokens."""
    stream = TextStream(stop)
    expected = before_stop(text, stop)
    assert "".join(shown(stream, pieces(text.encode(), cuts))) == expected
    assert stream.stopped == (expected != text)


@given(text=letters, cuts=st.lists(st.integers(0, 90)))
def test_half_a_character_is_never_shown(text: str, cuts: list[int]) -> None:
    """It waits for its other half."""
    assert all("\ufffd" not in piece for piece in shown(TextStream(), pieces(text.encode(), cuts)))


@given(text=letters, stop=stops)
def test_no_more_is_held_back_than_may_become_a_stop_string(text: str, stop: tuple[str, ...]) -> None:
    """After every letter, what is not shown yet is how a stop string begins."""
    stream, out = TextStream(stop), ""
    for end, letter in enumerate(text, 1):
        out += stream.push(letter.encode())
        if stream.stopped:
            return
        held = text[len(out) : end]
        assert not held or any(one.startswith(held) for one in stop)
        assert held == max(
            (text[at:end] for at in range(end) if any(one.startswith(text[at:end]) for one in stop)),
            key=len,
            default="",
        )


@given(st.lists(st.binary(max_size=4)), stops)
def test_any_bytes_become_text(raw: list[bytes], stop: tuple[str, ...]) -> None:
    """What is no UTF-8 is replaced, the same however it is cut."""
    together = b"".join(raw).decode(errors="replace")
    assert "".join(shown(TextStream(stop), raw)) == before_stop(together, stop)


def test_half_a_character_at_the_end_is_replaced() -> None:
    """The model stopped in the middle of it."""
    assert shown(TextStream(), ["é".encode()[:1]]) == ["", "\ufffd"]


def test_half_a_stop_string_at_the_end_is_text() -> None:
    """It never became one."""
    assert shown(TextStream(("<end>",)), [b"a<e"]) == ["a", "<e"]


def test_a_replaced_byte_may_complete_a_stop_string() -> None:
    """Seen only when the text is over."""
    stream = TextStream(("a\ufffd",))
    assert shown(stream, [b"xa", "é".encode()[:1]]) == ["x", "", ""]
    assert stream.stopped
