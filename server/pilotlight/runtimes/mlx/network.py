"""One network on MLX, with memory for several sequences, behind numpy types.

mlx-lm's own batch generator owns sampling, stopping and scheduling, and decides on its own when prompts are
computed; here the step loop does. So its architectures are called directly, with `Cells` as their caches.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from pilotlight.runtimes.base import LoadError
from pilotlight.runtimes.mlx.architecture import build, library_version, windows
from pilotlight.runtimes.mlx.cells import Cells, QuantizedCells, Span
from pilotlight.runtimes.mlx.checkpoint import Checkpoint
from pilotlight.runtimes.rows import DecodeError, Floats

LARGEST_RUN = 512

PROBE_TOKENS = 32

PROBE_SHORT_TOKENS = 8
"""Of the shorter row: who sees but one token sees the same from whatever position."""

PROBE_TOLERANCE = 0.05
"""Of the logits' spread; far more than what 16 bits round."""

CACHE_BYTES = 256 * 2**20
"""Freed buffers that MLX may keep to use again while something runs."""


class Network:
    """One loaded network; see `rows.Decoder`."""

    largest_run = LARGEST_RUN
    is_interruptible = False
    largest_interruptible = 0
    can_cut = True

    def __init__(
        self, checkpoint: Checkpoint, progress: Callable[[float], None], kv_bits: int | None = None
    ) -> None:
        """Load the weights; blocks. Keys and values have `kv_bits` each, or None: as they are computed.
        Raises `LoadError`."""
        self.device = "CPU" if mx.default_device() == mx.cpu else "GPU"
        if self.device == "CPU":
            # It would start a C++ compiler, and run what it finds in a folder that everybody may write to.
            mx.disable_compile()
        mx.set_cache_limit(CACHE_BYTES)
        self._network = build(checkpoint, progress)
        self.version = f"{mx.__version__}, mlx-lm {library_version()}"
        self._is_one_by_one = False
        self._span = Span()
        self._cells = [
            QuantizedCells(self._span, window, kv_bits) if kv_bits else Cells(self._span, window)
            for window in windows(self._network, checkpoint.kind)
        ]
        try:
            self.num_vocab = self.compute(0, [[0]], [0]).shape[-1]
        except DecodeError as exc:
            how = f" with keys and values of {kv_bits} bits" if kv_bits else ""
            raise LoadError(f"{checkpoint.folder} cannot be computed{how}: {exc}") from exc
        self._forms = [cells.forms for cells in self._cells]
        self.clear(0)

    def open(self, *, num_rows: int, context: int) -> None:
        """Rows are made when they are needed. Raises `LoadError`."""
        try:
            self._is_one_by_one = num_rows > 1 and not self.has_rows_side_by_side()
        except DecodeError as exc:
            raise LoadError(f"a prompt cannot be computed: {exc}") from exc

    def has_rows_side_by_side(self) -> bool:
        """Two rows of different lengths come to the same together and each by itself.

        Not every architecture of mlx-lm can apply a mask to each row: gemma2 fails, or sees what it must not.
        afm7 takes the longest row's position for that of all. Raises `DecodeError` if it computes no prompt
        at all.
        """
        tokens = [number % self.num_vocab for number in range(PROBE_TOKENS)]
        rows = tokens[:PROBE_SHORT_TOKENS], tokens
        alone = np.concatenate([self.compute(row, [own], [0]) for row, own in enumerate(rows)])
        try:
            together = self.compute(0, [own[-1:] for own in rows], [len(own) - 1 for own in rows])
        except DecodeError:
            return False
        finally:
            self.clear(0)
        return bool(np.abs(alone - together).max() < PROBE_TOLERANCE * np.ptp(alone))

    def reserve(self, lengths: Sequence[int]) -> bool:
        """`Cells` grow when they are written to."""
        return True

    def num_carried(self, lengths: Sequence[int]) -> int:
        return 0

    def read(
        self, row: int, tokens: Sequence[int], start: int, is_wanted: Callable[[], bool] | None = None
    ) -> bool:
        with _failures():
            self._run(row, [tokens], [start])
            self._evaluate()
        return True

    def compute(
        self,
        first: int,
        tokens: Sequence[Sequence[int]],
        starts: Sequence[int],
        is_wanted: Callable[[], bool] | None = None,
    ) -> Floats:
        if self._is_one_by_one and len(tokens) > 1:
            rows = zip(tokens, starts, strict=True)
            each = [self.compute(first + row, [own], [start]) for row, (own, start) in enumerate(rows)]
            return np.concatenate(each)
        with _failures():
            if more := len(tokens[0]) - 1:
                # What is not evaluated is not computed: logits of all but the last token.
                self._run(first, [row[:-1] for row in tokens], starts)
                self._evaluate()
            logits = self._run(first, [row[-1:] for row in tokens], [start + more for start in starts])
            last = logits[:, -1].astype(mx.float32)
            self._evaluate(last)
            return np.array(last)

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        for cells in self._cells:
            cells.copy(source, target, num_tokens)
        self._evaluate()

    def move(self, source: int, target: int, num_tokens: int) -> None:
        self.copy(source, target, num_tokens)
        self.clear(source)

    def cut(self, row: int, num_tokens: int) -> None:
        """Nobody looks behind the length that `compute` is told."""

    def clear(self, row: int) -> None:
        for cells in self._cells:
            cells.shrink(row)
        self._evaluate()
        if not row:
            mx.clear_cache()

    def rest(self) -> None:
        self.clear(1)
        mx.clear_cache()

    def save(self, row: int, num_tokens: int) -> list[tuple[Any, ...]]:
        saved = [cells.save(row, num_tokens) for cells in self._cells]
        mx.eval(saved)
        return saved

    def can_go_back(self, row: int, num_tokens: int) -> bool:
        return True

    def can_restore(self, held: int, num_tokens: int) -> bool:
        return True

    def restore(self, row: int, saved: list[tuple[Any, ...]], num_tokens: int) -> bool:
        for cells, arrays in zip(self._cells, saved, strict=True):
            cells.restore(row, arrays, num_tokens)
        self._evaluate()
        return True

    def pack(self, saved: list[tuple[Any, ...]]) -> list[npt.NDArray[Any]]:
        return [np.array(array.view(mx.uint8)) for arrays in saved for array in arrays]

    def unpack(self, arrays: Sequence[npt.NDArray[Any]], num_tokens: int) -> list[tuple[Any, ...]] | None:
        forms = [form for layer in self._forms for form in layer]
        shapes = [(1, heads, num_tokens, features * dtype.size) for heads, features, dtype in forms]
        if [(array.dtype.name, array.shape) for array in arrays] != [("uint8", shape) for shape in shapes]:
            return None
        left = iter(arrays)
        return [tuple(mx.array(next(left)).view(dtype) for *_, dtype in layer) for layer in self._forms]

    def set_threads(self, threads: int, prompt_threads: int) -> bool:
        """It has its own."""
        return False

    def check(self, lengths: Sequence[int]) -> None:
        """It keeps no count."""

    def _run(self, first: int, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> Any:
        """Logits of every token, not evaluated yet."""
        self._span.move(first, starts, len(tokens[0]))
        return self._network(mx.array(tokens), cache=self._cells)

    def _evaluate(self, *wanted: Any) -> None:
        """Compute these, and what the rows hold; without holding the GIL."""
        mx.eval(wanted, [cells.arrays for cells in self._cells])


@contextmanager
def _failures() -> Iterator[None]:
    """Architectures are many, and so are the exceptions they raise."""
    try:
        yield
    except Exception as exc:
        raise DecodeError(f"mlx failed: {' '.join(str(exc).split())[:500] or type(exc).__name__}") from exc
