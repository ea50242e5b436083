"""One exported decoder on ONNX Runtime, with memory for several sequences, behind numpy types.

The only file that imports `onnxruntime`. onnxruntime-genai's own ways to generate do not batch on a CPU: its
engine takes in new sequences while others run only for graphs with paged attention, which has no CPU kernel,
and a generator has one sequence. The graphs themselves do: attention (`GroupQueryAttention`) reads each row's
length from the mask and writes keys and values in place, into memory that the caller owns. So we own it.
Knows tokens, rows and logits; nothing of requests. Not thread-safe.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pilotlight.runtimes.base import LoadError, MissingLibraryError
from pilotlight.runtimes.onnx.cells import Cells
from pilotlight.runtimes.onnx.export import Export
from pilotlight.runtimes.onnx.providers import AUTO, CPU, PROVIDERS, choose
from pilotlight.runtimes.rows import DecodeError, Floats

DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

LOGITS_BYTES = 64 * 2**20
"""For the logits of one run. Most graphs compute them for every token of a prompt: this bounds its pieces."""

LARGEST_RUN = 512

PROBE_TOKENS = 8

PROBE_TOLERANCE = 0.1
"""Of the logits' spread; kernels for one token and for several differ by half of that in 4 bits."""

SAME_TOLERANCE = 0.001
"""Of the logits' spread, for the same computation in the same shapes."""

State = Sequence[npt.NDArray[Any]]
"""Keys and values of one sequence, taken out of the memory."""


def import_onnxruntime() -> Any:
    """The library, its telemetry switched off."""
    # Before it is imported, or it makes up a number for this machine and starts to upload; what can be called
    # afterwards ends neither.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as exc:
        raise MissingLibraryError(exc, "onnxruntime", "pilotlight[onnx]") from exc
    onnxruntime.disable_telemetry_events()
    return onnxruntime


class Graph:
    """One loaded decoder; see `rows.Decoder`."""

    is_interruptible = False
    largest_interruptible = 0
    can_cut = True

    def __init__(self, library: Any, export: Export, threads: int, provider: str = AUTO) -> None:
        """Load the weights; blocks. `library` is from `import_onnxruntime`. Raises `LoadError`."""
        self._library = library
        self.provider = choose(provider, library.get_available_providers())
        if not export.graph.is_file():
            raise LoadError(f"{export.graph.parent} has no {export.graph.name}")
        self._export = export
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads spin while a run lasts, as waking one up for each of its hundreds of nodes would cost more
        # time and more power; not a moment longer, as between two tokens that burns a battery.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        with _failures(library, lambda text: LoadError(f"onnxruntime cannot load {export.graph}: {text}")):
            names = [PROVIDERS[self.provider]]
            self._session = library.InferenceSession(str(export.graph), options, providers=names)
        if PROVIDERS[self.provider] not in self._session.get_providers():
            # It falls back by itself, with no more than a line on stderr.
            raise LoadError(f"onnxruntime cannot start its execution provider {self.provider}")
        self._inputs = {one.name: one for one in self._session.get_inputs()}
        self._outputs = {one.name: one for one in self._session.get_outputs()}
        self._check()
        self._narrowest = 0

    def choose_rope(self, context: int) -> str:
        """The rotary factors for a memory of so many tokens: "long", or "" for the short or only ones.

        Graphs with two sets (longrope: Phi) take the long one in every run whose mask is wider than what the
        model was made for at first, and what was computed with one set is nonsense to the other. So it is
        chosen once: with masks that are always as wide as the memory. Opens it. Raises `LoadError`.
        """
        self._narrowest = 0
        self.open(num_rows=1, context=context)
        if context <= 2 * PROBE_TOKENS:
            return ""
        try:
            natural = self._probe(0)
            if _is_same(natural, self._probe(context)):
                return ""
            # Where any other width makes a difference, it is not one between factors.
            is_chosen = _is_same(natural, self._probe(2 * PROBE_TOKENS))
        except DecodeError:
            # It takes masks of no other width; if it computes nothing at all, the warm-up tells.
            return ""
        self._narrowest = context if is_chosen else 0
        return "long" if is_chosen else ""

    def _probe(self, narrowest: int) -> Floats:
        """Logits behind a few tokens, computed with a mask that is at least so wide."""
        self._narrowest = narrowest
        try:
            return self.compute(0, [list(range(min(PROBE_TOKENS, self.largest_run)))], [0]).copy()
        finally:
            self._narrowest = 0
            self.clear(0)

    def open(self, *, num_rows: int, context: int) -> None:
        shape = (num_rows, self._export.num_kv_heads, context, self._export.head_size)
        self._cells = [Cells(shape, self._dtype) for _ in self._export.states()]
        self._states = [cells.array for cells in self._cells]
        self._bindings: dict[tuple[int, int], Any] = {}
        self._held = [0] * num_rows
        """Tokens that the pages of each row hold, wanted or not."""
        fit = LARGEST_RUN if self._is_pruned else LOGITS_BYTES // (4 * self._export.num_vocab)
        self.largest_run = max(1, min(LARGEST_RUN, fit))
        num_outputs = max(num_rows, 1 if self._is_pruned else self.largest_run)
        self._logits = np.empty(num_outputs * self._export.num_vocab, self._logits_dtype)
        try:
            is_usable = self.provider == CPU or self.is_written_in_place()
        except DecodeError as exc:
            raise LoadError(f"{self._export.graph} cannot be computed on {self.provider}: {exc}") from exc
        if not is_usable:
            raise LoadError(f"{self.provider} does not write keys and values in place; use {CPU}")

    def reserve(self, lengths: Sequence[int]) -> bool:
        """The system gives memory when it is written to."""
        return True

    def num_carried(self, lengths: Sequence[int]) -> int:
        return 0

    def read(
        self, row: int, tokens: Sequence[int], start: int, is_wanted: Callable[[], bool] | None = None
    ) -> bool:
        self.compute(row, [tokens], [start])
        return True

    def compute(
        self,
        first: int,
        tokens: Sequence[Sequence[int]],
        starts: Sequence[int],
        is_wanted: Callable[[], bool] | None = None,
    ) -> Floats:
        ids = np.array(tokens, np.int64)
        num_rows, num_tokens = ids.shape
        lengths = np.array(starts, np.int64)[:, None] + num_tokens
        positions = np.arange(max(int(lengths.max()), self._narrowest))[None]
        inputs = {
            self._export.input_ids: ids,
            self._export.attention_mask: (positions < lengths).astype(np.int64),
        }
        if self._export.position_ids in self._inputs:
            inputs[self._export.position_ids] = lengths - num_tokens + np.arange(num_tokens)[None]
        depth = 1 if self._is_pruned else num_tokens
        size = num_rows * depth * self._export.num_vocab
        logits = self._logits[:size].reshape(num_rows, depth, -1)
        self._note(first, lengths[:, 0].tolist())
        binding = self._binding(first, first + num_rows)
        for name, values in inputs.items():
            _bind(binding.bind_input, name, values)
        _bind(binding.bind_output, self._export.logits, logits)
        with _failures(self._library, lambda text: DecodeError(f"onnxruntime failed: {text}")):
            self._session.run_with_iobinding(binding)
        return np.asarray(logits[:, -1], np.float32)

    def is_written_in_place(self) -> bool:
        """A prompt comes to the same in one piece and in two: what a run writes, the next one reads."""
        tokens = list(range(PROBE_TOKENS))
        whole = self.compute(0, [tokens], [0])[0].copy()
        self.clear(0)
        self.compute(0, [tokens[:-1]], [0])
        pieces = self.compute(0, [tokens[-1:]], [len(tokens) - 1])[0]
        self.clear(0)
        return bool(np.abs(whole - pieces).max() < PROBE_TOLERANCE * np.ptp(whole))

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        self._note(target, [num_tokens])
        for state in self._states:
            state[target, :, :num_tokens] = state[source, :, :num_tokens]

    def move(self, source: int, target: int, num_tokens: int) -> None:
        self.copy(source, target, num_tokens)
        self.clear(source)

    def cut(self, row: int, num_tokens: int) -> None:
        """Nobody reads behind the length that `compute` is told, but it would take memory for longer."""
        held = self._held[row]
        if held - num_tokens < self._cells[0].tokens_per_page:
            return
        if not num_tokens:
            self.clear(row)
            return
        self._held[row] = num_tokens
        for cells in self._cells:
            cells.cut(row, num_tokens, held)

    def clear(self, row: int) -> None:
        self._held[row] = 0
        for cells in self._cells:
            cells.clear(row)

    def rest(self) -> None:
        """Cleared rows take nothing."""

    def save(self, row: int, num_tokens: int) -> State:
        return [state[row, :, :num_tokens].copy() for state in self._states]

    def can_go_back(self, row: int, num_tokens: int) -> bool:
        return True

    def can_restore(self, held: int, num_tokens: int) -> bool:
        return True

    def restore(self, row: int, saved: State, num_tokens: int) -> bool:
        self._note(row, [num_tokens])
        for state, values in zip(self._states, saved, strict=True):
            state[row, :, :num_tokens] = values[:, :num_tokens]
        return True

    def pack(self, saved: State) -> State:
        return saved

    def unpack(self, arrays: State, num_tokens: int) -> State | None:
        forms = {(array.dtype, array.shape) for array in arrays}
        shape = (self._export.num_kv_heads, num_tokens, self._export.head_size)
        is_ours = len(arrays) == len(self._states) and forms == {(np.dtype(self._dtype), shape)}
        return arrays if is_ours else None

    def set_threads(self, threads: int, prompt_threads: int) -> bool:
        """A session's threads are for its life."""
        return False

    def check(self, lengths: Sequence[int]) -> None:
        """It keeps no count."""

    def _note(self, first: int, lengths: Sequence[int]) -> None:
        """The rows from `first` on are written up to these lengths."""
        for row, length in enumerate(lengths, first):
            self._held[row] = max(self._held[row], length)

    def _binding(self, first: int, end: int) -> Any:
        """Inputs and outputs of these rows, the memory already bound: that costs as much as a small model."""
        if (known := self._bindings.get((first, end))) is not None:
            return known
        binding = self._bindings[first, end] = self._session.io_binding()
        for (past, present), state in zip(self._export.states(), self._states, strict=True):
            _bind(binding.bind_input, past, state[first:end])
            _bind(binding.bind_output, present, state[first:end])
        return binding

    def _check(self) -> None:
        """Refuse what `compute` cannot drive, by name. Raises `LoadError`."""
        export = self._export
        names = [name for names in export.states() for name in names]
        pasts = {past for past, _ in export.states()}
        for name in (export.input_ids, export.attention_mask, export.logits, *names):
            if name not in self._inputs and name not in self._outputs:
                raise LoadError(f"{export.graph} has no input or output {name!r}")
        known = {export.input_ids, export.attention_mask, export.position_ids, *pasts}
        if other := sorted(self._inputs.keys() - known):
            raise LoadError(f"{export.graph} needs the inputs {', '.join(other)}: not a plain text model")
        kinds = {self._inputs[past].type for past in pasts}
        if len(kinds) != 1 or not kinds <= DTYPES.keys():
            raise LoadError(f"{export.graph} keeps its state as {', '.join(sorted(kinds)) or 'nothing'}")
        self._dtype = DTYPES[kinds.pop()]
        logits = self._outputs.get(export.logits)
        if logits is None or logits.type not in DTYPES or len(logits.shape) != 3:
            raise LoadError(f"{export.graph} gives no logits as {export.logits!r}")
        self._logits_dtype = DTYPES[logits.type]
        self._is_pruned = logits.shape[1] == 1


def _is_same(one: Floats, other: Floats) -> bool:
    return bool(np.abs(one - other).max() <= SAME_TOLERANCE * np.ptp(one))


def _bind(bind: Callable[..., None], name: str, values: npt.NDArray[Any]) -> None:
    """Let the library read or write our memory. Whoever calls keeps it alive."""
    bind(name, "cpu", 0, values.dtype.type, values.shape, values.ctypes.data)


@contextmanager
def _failures(library: Any, error: Callable[[str], Exception]) -> Iterator[None]:
    """What the library raises, as one of ours: its exceptions have no base of their own."""
    try:
        yield
    except _kinds(library) as exc:
        raise error(" ".join(str(exc).split())[:500]) from exc


@cache
def _kinds(library: Any) -> tuple[type[Exception], ...]:
    """All that it raises."""
    native = library.capi.onnxruntime_pybind11_state
    return RuntimeError, *(kind for kind in vars(native).values() if _is_exception(kind))


def _is_exception(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)
