"""Which sequence stands in which row of a `Decoder`'s memory, and what ended sequences left behind.

A step computes rows side by side. So what runs stands without gaps: the last row moves into the place of one
that ends. What ended is parked in ordinary memory, like a page that is not in use: its row is wanted, or its
cells would slow down the others. Only while nothing runs, the last that ended rests where it was.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from pilotlight.runtimes import batching
from pilotlight.runtimes.batching import shares_prefix
from pilotlight.runtimes.limits import HEADROOM
from pilotlight.runtimes.parking import Parked, Parking, Prefix

S = TypeVar("S", bound=batching.Sequence)

Floats = npt.NDArray[np.float32]


class DecodeError(Exception):
    """The library reported a failure that is no crash."""


class Interrupted(Exception):
    """A computation ended early because it was asked to; nothing changed."""


class Decoder(Protocol):
    """One loaded model with memory for several sequences, each in a row of its own. Knows tokens, rows and
    logits; nothing of requests. Not thread-safe."""

    largest_run: int
    """Tokens of a row that one call may compute."""

    is_interruptible: bool
    """`read` and `compute` end when they are `is_wanted`, where what they have begun can be taken back."""

    @property
    def largest_interruptible(self) -> int:
        """Tokens of a row that one call may begin and take back."""

    @property
    def can_cut(self) -> bool:
        """A row can go back to what it was some tokens ago."""

    def can_go_back(self, row: int, num_tokens: int) -> bool:
        """This one can be cut to its first tokens, and goes on as if it had never held more."""

    def open(self, *, num_rows: int, context: int) -> None:
        """Get ready for so many sequences, of so many tokens in all. Raises `LoadError`."""

    def reserve(self, lengths: Sequence[int]) -> bool:
        """Make room for that many tokens in the first rows, those behind being empty; what they hold stays.

        False if there is no memory. Raises `DecodeError`.
        """

    def num_carried(self, lengths: Sequence[int]) -> int:
        """Tokens that `reserve` would copy while there is memory for all of the context besides."""

    def read(
        self, row: int, tokens: Sequence[int], start: int, is_wanted: Callable[[], bool] | None = None
    ) -> bool:
        """Compute a piece of a prompt whose logits nobody wants; the row holds `start` tokens before.

        False if it ended early since it `is_wanted`, and nothing changed. Blocks without holding the GIL.
        Raises `DecodeError`.
        """

    def compute(
        self,
        first: int,
        tokens: Sequence[Sequence[int]],
        starts: Sequence[int],
        is_wanted: Callable[[], bool] | None = None,
    ) -> Floats:
        """Compute tokens for the rows from `first` on, as many for each; logits of the last of each row.

        `starts` says how many tokens each row holds before. Blocks without holding the GIL. The logits are
        valid until the next call. Raises `DecodeError`, and `Interrupted` if it ended early.
        """

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """The first tokens of one row also stand in another, which is empty."""

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """What one row holds stands in another instead, which is empty."""

    def cut(self, row: int, num_tokens: int) -> None:
        """The row holds only its first tokens."""

    def clear(self, row: int) -> None:
        """Give back the memory of a row; those after it are clear already."""

    def rest(self) -> None:
        """Nothing is computed for now, and only the first row may hold something: give back what is spare."""

    def save(self, row: int, num_tokens: int) -> Any:
        """A copy of a row's first tokens, for `restore`, if `can_restore` those of all it holds."""

    def can_restore(self, held: int, num_tokens: int) -> bool:
        """Of a copy of `held` tokens, the first `num_tokens` can be restored."""

    def restore(self, row: int, saved: Any, num_tokens: int) -> bool:
        """Fill an empty row with the first of the saved tokens; False if the library does not take them."""

    def pack(self, saved: Any) -> Sequence[npt.NDArray[Any]]:
        """What was saved, as arrays that hold nothing else: bytes, or floats of 16 or 32 bits."""

    def unpack(self, arrays: Sequence[npt.NDArray[Any]], num_tokens: int) -> Any | None:
        """What was packed; None if these arrays are no state of so many tokens of this model."""

    def set_threads(self, threads: int, prompt_threads: int) -> bool:
        """Compute a token alone and more at once with so many from now on; False if it goes on with those it
        has."""

    def check(self, lengths: Sequence[int]) -> None:
        """The first rows hold that many tokens, the others none. Raises `AssertionError`."""


class Source(Struct, frozen=True):
    """Where the first `shared` tokens of a prompt are computed already: in a row, parked, or nowhere."""

    shared: int = 0
    row: int | None = None
    parked: Parked | None = None


class Kept(Struct, frozen=True):
    """A prefix at rest that may be written to disk."""

    tokens: list[int]
    used_at: float
    state: Callable[[], Any]
    """What the decoder saved, or saves now."""


NOTHING = Prefix([], used_at=0.0, outlives=False)


class Memory(Generic[S]):
    """Owns the rows of one decoder, which hold at most `context` tokens; half as many are parked at most."""

    def __init__(self, decoder: Decoder, context: int, clock: Callable[[], float] = time.time) -> None:
        self._decoder = decoder
        self._context = context
        self._clock = clock
        self._parking = Parking(context // 2)
        self._rows: list[S] = []
        self._resting = NOTHING
        """Of the last sequence that ended: it stands in the first row until something runs."""

    @property
    def running(self) -> Sequence[S]:
        """The sequences that have a row, in row order."""
        return tuple(self._rows)

    @property
    def num_kept(self) -> int:
        """Prefixes at rest, parked or not."""
        return len(self._parking) + bool(self._resting.tokens)

    @property
    def num_tokens(self) -> int:
        """Tokens in rows."""
        return sum(sequence.num_computed for sequence in self._rows) + len(self._resting.tokens)

    def find(self, tokens: list[int], running: Iterable[S]) -> Source:
        """The longest computed prefix of `tokens`: of one of these running sequences, resting, or parked."""
        best, can_go_back = Source(), self._decoder.can_go_back
        shared = shares_prefix(self._resting.tokens, tokens)
        if shared and can_go_back(0, shared):
            best = Source(shared, row=0)
        for other in running:
            common = min(shares_prefix(other.tokens, tokens), other.num_computed)
            if common > best.shared and other.row is not None and can_go_back(other.row, common):
                best = Source(common, row=other.row)
        parked, shared = self._parking.match(tokens, self._decoder.can_restore)
        if parked and shared > best.shared:
            return Source(shared, parked=parked)
        return best

    def enter(self, sequence: S, source: Source, *, outlives: bool = True) -> bool:
        """Give the sequence the next row, which begins with the source; False if the memory has no room.

        Whether what it leaves `outlives` the worker matters to whom it takes the row from.
        """
        lengths = [len(other.tokens) for other in self._rows]
        wanted = sum(lengths) + len(sequence.tokens)
        if wanted + (HEADROOM if lengths else 0) > self._context:
            return False
        goes_on = bool(self._resting.tokens) and source.row is not None
        self._disturb(source.shared if goes_on else 0, outlives=outlives)
        row = len(self._rows)
        room = min(len(sequence.tokens) + HEADROOM, self._context - sum(lengths))
        if not self._reserve([*lengths, room], source.parked):
            if not row:
                # What rested there. Behind others there may be no such row.
                self._decoder.clear(row)
            return False
        if source.parked is not None:
            source = self._restore(row, source, source.parked)
        elif source.row is not None and not goes_on:
            source = self._copy(row, source, source.row)
        sequence.row = row
        sequence.num_computed = source.shared
        if sequence.cached_tokens is None:
            sequence.cached_tokens = source.shared
        self._rows.append(sequence)
        return True

    def _restore(self, row: int, source: Source, parked: Parked) -> Source:
        """The source, or none: what comes from a file may be refused after all checks."""
        if self._decoder.restore(row, parked.state, source.shared):
            self._parking.touch(parked, self._clock())
            return source
        self._parking.drop(parked)
        self._decoder.clear(row)
        return Source()

    def _copy(self, row: int, source: Source, other: int) -> Source:
        """The source, or none: making room may have taken from the other row what it no longer looks at."""
        if not self._decoder.can_go_back(other, source.shared):
            return Source()
        self._decoder.copy(other, row, source.shared)
        return source

    def park(self, parked: Parked) -> None:
        """Have one more prefix, which was computed elsewhere."""
        self._parking.put(parked)

    def kept(self) -> Iterator[Kept]:
        """All prefixes at rest that may be written to disk, the most recently used first."""
        resting = self._resting
        if resting.outlives:
            yield Kept(resting.tokens, resting.used_at, partial(self._decoder.save, 0, len(resting.tokens)))
        for parked in self._parking.newest_first():
            if parked.outlives:
                yield Kept(parked.tokens, parked.used_at, partial(getattr, parked, "state"))

    def _disturb(self, num_tokens: int, *, outlives: bool) -> None:
        """What rests leaves so many tokens in its row, and is parked if that is not all of it, or if it
        outlives who goes on from it."""
        resting = self._resting
        is_outlived = resting.outlives and not outlives
        if is_outlived or len(resting.tokens) > num_tokens:
            self._park(0, resting, num_tokens, is_needed=is_outlived)
            self._decoder.cut(0, num_tokens)
        self._resting = NOTHING

    def hold(self) -> bool:
        """Have room for all tokens of those that run; False if the memory has none."""
        lengths = [len(sequence.tokens) for sequence in self._rows]
        return sum(lengths) <= self._context and self._reserve(lengths)

    def _reserve(self, lengths: Sequence[int], wanted: Parked | None = None) -> bool:
        """By the decoder. What is parked makes way for what it copies: together they are not more than a
        context, unless one that is `wanted` in a moment is longer by itself."""
        if num_carried := self._decoder.num_carried(lengths):
            self._parking.shrink(self._context - num_carried, wanted)
        return self._decoder.reserve(lengths)

    def leave(self, sequence: S, *, keeps: bool, outlives: bool = True) -> None:
        """What it computed rests or is parked if it `keeps`; its row goes to the last one."""
        row = sequence.row
        assert row is not None
        tokens = sequence.tokens[: sequence.num_computed] if keeps and self._decoder.can_cut else []
        left = Prefix(tokens, self._clock(), outlives)
        last = self._rows.pop()
        sequence.row = None
        if tokens and not self._rows:
            self._resting = self._parking.replaced_by(left)
            return
        if tokens:
            self._park(row, left)
        if last is not sequence:
            self._decoder.cut(row, 0)
            if last.num_computed:
                assert last.row is not None
                self._decoder.move(last.row, row, last.num_computed)
            last.row = row
            self._rows[row] = last
        self._decoder.clear(len(self._rows))

    def _park(self, row: int, prefix: Prefix, num_left: int = 0, *, is_needed: bool = False) -> None:
        """What is too long is parked as far as it fits: the rest is computed again. Nothing if that is no
        more than what is left in the row, unless it `is_needed`. The row is cut then, before it is copied, as
        far as that leaves it."""
        tokens = prefix.tokens
        count = min(len(tokens), self._parking.max_tokens)
        if (count > num_left or is_needed) and self._decoder.can_restore(len(tokens), count):
            if num_left <= count < len(tokens):
                self._decoder.cut(row, count)
            state = self._decoder.save(row, count)
            self._parking.put(Parked(tokens[:count], prefix.used_at, prefix.outlives, state))

    def forget(self) -> None:
        """Drop all prefixes at rest."""
        self._parking = Parking(self._parking.max_tokens)
        if not self._rows:
            self._resting = NOTHING
            self._decoder.clear(0)
            self._decoder.rest()

    def rest(self) -> None:
        """Nothing runs, nor will it soon: give back what is spare."""
        self._decoder.rest()

    def check(self) -> None:
        """Rows, sequences and the decoder agree. Raises `AssertionError`."""
        assert not (self._rows and self._resting.tokens), "a prefix rests in the row of a sequence"
        for row, sequence in enumerate(self._rows):
            assert sequence.row == row, f"row {row} holds a sequence that believes to be in {sequence.row}"
            computed, known = sequence.num_computed, len(sequence.tokens)
            assert 0 <= computed < known, f"row {row} holds {computed} tokens of {known}"
        self._decoder.check([s.num_computed for s in self._rows] or [len(self._resting.tokens)])
