"""llama.cpp as a `rows.Decoder`: memory that grows and is divided anew, batches of whole groups of rows."""

from collections.abc import Callable, Sequence

from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.kv_types import KvTypes
from pilotlight.runtimes.limits import HEADROOM
from pilotlight.runtimes.llamacpp.layout import Layout, choose
from pilotlight.runtimes.llamacpp.native import Llama
from pilotlight.runtimes.llamacpp.state import Bytes, SequenceState
from pilotlight.runtimes.rows import DecodeError, Floats, Interrupted

LARGEST_RUN = 512
"""Tokens per decode: larger ones compute no faster on a CPU and delay cancels and new prompts."""

ROWS = 16
"""Rows of a matrix product that ggml's fastest kernels take at once. Measured on AVX-512, repacked Q4_0: 12
to 15 rows take as long as 16, or longer, and 28 to 31 as long as 32."""

FEW_ROWS = 4
"""Rows that ggml's smaller kernels take at once; what is left over is computed row by row. 7 take as long
as 9."""

WORTH_PADDING = 3
"""Rows to add at most for a whole group; kernels without such groups lose little by it."""


class LlamaDecoder:
    """One loaded model and one context; see `rows.Decoder`."""

    largest_run = LARGEST_RUN
    is_interruptible = True

    def __init__(self, llama: Llama, threads: int, kv: KvTypes) -> None:
        self._llama = llama
        self._threads = threads
        self._kv = kv
        self._filler = llama.vocabulary.filler()

    def open(self, *, num_rows: int, context: int) -> None:
        self._num_rows = num_rows
        self._context = context
        self._reserved: Sequence[int] = ()
        self._open()
        if self._llama.has_plain_memory:
            self._look_at(self._save(0))
        self._llama.clear(0)

    def _look_at(self, state: SequenceState) -> None:
        """A first state tells whether it could be moved between layouts."""
        if not state.is_plain(num_tokens=1):
            self._llama.has_plain_memory = False
            self._open()
        elif self._llama.would_flash(self._layout):
            # llama.cpp leaves flash attention out for some architectures.
            self._llama.can_flash = not state.is_transposed

    def _open(self) -> None:
        layout = self._choose([1] * self._num_rows)
        if layout is None or not self._llama.open(layout, LARGEST_RUN, self._threads, self._kv):
            raise LoadError(
                f"llama.cpp cannot make a context of {self._context} tokens: {self._llama.said()}"
            )
        self._layout: Layout = layout
        self._llama.warm_up(self._filler)

    # --- computing ---

    def read(
        self, row: int, tokens: Sequence[int], start: int, is_wanted: Callable[[], bool] | None = None
    ) -> bool:
        batch = self._llama.batch
        batch.clear()
        batch.add(tokens, position=start, row=row, wants_logits=False)
        padding = self._pad(row, len(tokens), start)
        is_done = self._decode(is_wanted)
        if padding or not is_done:
            self._llama.cut(row, start + len(tokens) if is_done else start)
        return is_done

    def compute(
        self,
        first: int,
        tokens: Sequence[Sequence[int]],
        starts: Sequence[int],
        is_wanted: Callable[[], bool] | None = None,
    ) -> Floats:
        batch = self._llama.batch
        batch.clear()
        rows = range(first, first + len(tokens))
        for row, piece, start in zip(rows, tokens, starts, strict=True):
            batch.add(piece, position=start, row=row, wants_logits=True)
        if len(tokens) == 1:
            padding = self._pad(first, len(tokens[0]), starts[0])
            is_done = self._decode(is_wanted)
            if padding:
                self._llama.cut(first, starts[0] + len(tokens[0]))
        else:
            others = range(rows.stop, rows.stop + self._num_spare_rows(rows.stop, len(tokens)))
            for row in others:
                batch.add([self._filler], position=0, row=row, wants_logits=False)
            is_done = self._decode(is_wanted)
            for row in others:
                self._llama.clear(row)
        if not is_done:
            for row, start in zip(rows, starts, strict=True):
                self._llama.cut(row, start)
            raise Interrupted
        return self._llama.logits(len(tokens))

    def _decode(self, is_wanted: Callable[[], bool] | None) -> bool:
        """Compute the batch; False if it was broken off, which is done only where it can be taken back."""
        return self._llama.decode(is_wanted if is_wanted and self._can_take_back() else None)

    @property
    def largest_interruptible(self) -> int:
        # Layers with a sliding window put each microbatch in the place of what is not seen from its start, so
        # all but the first may take what is seen from the batch's.
        return self._llama.microbatch if self._llama.sliding_window else self.largest_run

    def _can_take_back(self) -> bool:
        """What the batch adds can be cut off again, and nothing is missed then that it took the place of."""
        is_kept = not self._llama.sliding_window or len(self._llama.batch) <= self.largest_interruptible
        return self.can_cut and is_kept

    def _pad(self, row: int, num_tokens: int, start: int) -> int:
        """Add tokens behind the piece of one row, to be cut off again: nothing before them sees them."""
        padding = num_padding(num_tokens) if num_tokens > 1 and self.can_cut else 0
        lengths = list(self._reserved)
        if row < len(lengths):
            lengths[row] = max(lengths[row], start + num_tokens) + padding
        if not (padding and row < len(lengths) and self._layout.holds(lengths)):
            return 0
        position = start + num_tokens
        self._llama.batch.add([self._filler] * padding, position=position, row=row, wants_logits=False)
        return padding

    def _num_spare_rows(self, first: int, num_rows: int) -> int:
        """Rows behind the last one in use to compute along, with one token each."""
        padding = num_padding(num_rows)
        is_free = first == len(self._reserved) and self._layout.holds([*self._reserved, *[1] * padding])
        return padding if is_free else 0

    # --- memory ---

    def reserve(self, lengths: Sequence[int]) -> bool:
        wanted = self._wanted(lengths)
        self._reserved = tuple(lengths)
        return self._layout.holds(lengths) if wanted is None else self._divide(wanted, len(lengths))

    def num_carried(self, lengths: Sequence[int]) -> int:
        if self._wanted(lengths) is None:
            return 0
        return sum(self._llama.num_held(row) for row in self._carried(len(lengths)))

    def _wanted(self, lengths: Sequence[int]) -> Layout | None:
        """What is to be made for them; None if they have to do with what there is."""
        holds = self._layout.holds(lengths)
        # What would be better for several is worth making only once they begin.
        if holds and not len(self._reserved) < len(lengths) > 1:
            return None
        wanted = self._choose(lengths)
        is_useful = wanted is not None and (not holds or self._is_better(wanted, len(lengths)))
        return wanted if is_useful else None

    def _is_better(self, wanted: Layout, num_rows: int) -> bool:
        """Than the layout there is, by more than making it costs, and another when a long prompt comes."""
        if self._layout.is_shared or wanted.is_shared:
            return not wanted.is_shared
        gains_flash = self._llama.would_flash(wanted) and not self._llama.would_flash(self._layout)
        return gains_flash and num_rows >= FEW_ROWS

    def _divide(self, wanted: Layout, num_rows: int) -> bool:
        """Make the memory anew and carry over what the first rows hold; False if the old one has to stay."""
        saved = [(row, self._llama.num_held(row), self._save(row)) for row in self._carried(num_rows)]
        old = self._layout
        is_done = self._llama.resize(wanted)
        if not (is_done or self._llama.resize(old)):
            raise DecodeError(f"llama.cpp cannot make its memory again: {self._llama.said()}")
        self._layout = wanted if is_done else old
        for row, num_tokens, state in saved:
            self._put_back(row, state, num_tokens)
        return is_done

    def _carried(self, num_rows: int) -> list[int]:
        """Of the first rows, those that hold something."""
        return [row for row in range(min(num_rows, self._layout.num_rows)) if self._llama.num_held(row)]

    def _choose(self, lengths: Sequence[int]) -> Layout | None:
        return choose(lengths, self._num_rows, self._context, is_divisible=self._llama.has_plain_memory)

    @property
    def can_cut(self) -> bool:
        return not self._llama.is_recurrent

    def can_go_back(self, row: int, num_tokens: int) -> bool:
        if self._llama.has_plain_memory:
            return True
        # Layers with a sliding window give up what is not seen from the end of the row: some of it for other
        # tokens, all of it when memory is made anew or a state restored.
        is_whole = num_tokens == self._llama.num_held(row)
        seen_from = max(0, num_tokens - self._llama.sliding_window)
        return self.can_cut and (is_whole or 0 <= self._llama.first_held(row) <= seen_from)

    def can_restore(self, held: int, num_tokens: int) -> bool:
        if self._llama.has_plain_memory:
            return True
        # What is saved leaves out what layers with a sliding window no longer look at from its end.
        return self.can_cut and num_tokens == held

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        if self._layout.is_shared:
            self._llama.share(source, target, num_tokens)
        else:
            self._put_back(target, self._save(source), num_tokens)

    def move(self, source: int, target: int, num_tokens: int) -> None:
        if self._layout.is_shared and self._llama.has_plain_memory:
            self._llama.share(source, target, num_tokens)
            self._llama.clear(source)
            return
        # Shared cells may have no room for both.
        state = self._save(source)
        self._llama.clear(source)
        self._put_back(target, state, num_tokens)

    def cut(self, row: int, num_tokens: int) -> None:
        self._llama.cut(row, num_tokens)

    def clear(self, row: int) -> None:
        self._llama.clear(row)

    def rest(self) -> None:
        held = self._llama.num_held(0)
        wanted = self._choose([min(held + HEADROOM, self._context)] if held else [])
        if wanted is not None and wanted.num_cells_in_all < self._layout.num_cells_in_all:
            self._divide(wanted, num_rows=1)

    def save(self, row: int, num_tokens: int) -> SequenceState:
        state = self._save(row)
        is_all = not self._llama.has_plain_memory or state.num_tokens == num_tokens
        return state if is_all else state.first(num_tokens)

    def _save(self, row: int) -> SequenceState:
        return self._llama.save(row, self._layout)

    def restore(self, row: int, saved: SequenceState, num_tokens: int) -> bool:
        if self._llama.has_plain_memory and saved.num_tokens > num_tokens:
            saved = saved.first(num_tokens)
        return self._llama.restore(row, saved, self._layout)

    def _put_back(self, row: int, saved: SequenceState, num_tokens: int) -> None:
        """What was just saved. Raises `DecodeError`."""
        if not self.restore(row, saved, num_tokens):
            raise DecodeError(f"llama.cpp cannot restore {num_tokens} tokens: {self._llama.said()}")

    def pack(self, saved: SequenceState) -> Sequence[Bytes]:
        return [saved.packed()]

    def unpack(self, arrays: Sequence[Bytes], num_tokens: int) -> SequenceState | None:
        state = SequenceState.unpacked(arrays[0]) if len(arrays) == 1 else None
        if state is not None and self._llama.has_plain_memory and not state.is_plain(num_tokens):
            return None
        return state

    def set_threads(self, threads: int, prompt_threads: int) -> bool:
        self._llama.set_threads(threads, prompt_threads)
        return True

    def check(self, lengths: Sequence[int]) -> None:
        for row in range(self._layout.num_rows):
            expected = lengths[row] if row < len(lengths) else 0
            held = self._llama.num_held(row)
            assert held == expected, f"row {row} holds {held} tokens, expected {expected}"


def num_padding(num_tokens: int) -> int:
    """Tokens to add to a batch because computing them is faster than leaving them out."""
    missing = -num_tokens % ROWS
    if missing <= WORTH_PADDING:
        return missing
    return 1 if num_tokens % FEW_ROWS == FEW_ROWS - 1 else 0
