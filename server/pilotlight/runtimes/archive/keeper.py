"""What a worker does with an archive: finds in it how prompts begin, and leaves in it what it has computed.

Owns the records of one model and its settings. A record that is damaged or does not fit is none.
"""

import hashlib
import math
import os
import queue
import shutil
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from pilotlight.core import Archive
from pilotlight.runtimes.archive import folder, record
from pilotlight.runtimes.archive.record import Header, RecordError
from pilotlight.runtimes.parking import Parked
from pilotlight.runtimes.rows import Decoder, Kept
from pilotlight.runtimes.transcripts import Transcript, Transcripts
from pilotlight.worker.protocol import Load, Saved

LEAST_TOKENS = 32
"""Fewer are computed as fast as a file is found."""

MOST_UNUSED = 16
"""A record is read whole: worth it if at least one in so many of its tokens is of use."""

BYTES_FREE = 2**30
"""Of the disk, which are left to others."""

MOST_PROMPTS = 32
"""Of this worker, the last, that are remembered."""

FREE_SETTINGS = frozenset(
    {"path", "context", "parallel", "threads", "chat_template", "archive", "measures_threads"}
)
"""Of `Load`: what was computed is the same whatever they are. What the path leads to the digest says."""

Tokens = npt.NDArray[np.int32]


class Known(Struct, frozen=True):
    """A record that may be read."""

    path: Path
    header: Header
    tokens: Tokens


class Fetched(Struct, frozen=True):
    """A record that was read for a prompt."""

    known: Known
    arrays: record.Arrays
    prompt: list[int]
    """All of it but the last token, which is computed always."""
    shared: int


class Keeper:
    """The records of one model. `fetch` may run beside all others on another thread."""

    def __init__(self, archive: Archive, load: Load, maker: str, decoder: Decoder) -> None:
        """`maker` names the library that computes, its version, and the way it does."""
        self._archive = archive
        self._folder = Path(archive.folder)
        self._key = key_of(archive, load, maker)
        self._decoder = decoder
        self._known: list[Known] = []
        self._seen: list[Known] = []
        """All there were at load or were saved since, read since or not."""
        self._num_vocab = 0
        self._prompts: tuple[Tokens, ...] = ()
        """The last ones, newest first."""
        self._fetched: queue.SimpleQueue[Fetched] = queue.SimpleQueue()

    def open(self, num_vocab: int) -> list[Transcript]:
        """Look at what there is; the conversations' texts, the last used last."""
        try:
            folder.prune(self._archive)
        except OSError as exc:
            _say(f"old conversations cannot be deleted: {exc.strerror}")
        found = [entry.path for entry in reversed(folder.entries(self._folder))]
        ours = [path for path in found if path.name.startswith(folder.key_prefix(self._key))]
        self._num_vocab = num_vocab
        self._seen = self._look_at(ours)
        self._known = list(self._seen)
        texts = [(one.header.text, _tokens(one.header.text_tokens)) for one in self._known]
        return [Transcript(text, array("i", tokens)) for text, tokens in texts if text]

    def forget(self) -> None:
        """What was read or asked for is no longer in memory: all there is may be read again."""
        self._known = list(self._seen)
        self._prompts = ()

    def _look_at(self, paths: Iterable[Path]) -> list[Known]:
        """Those that may be read."""
        return [one for path in paths if (one := self._look(path))]

    def _look(self, path: Path) -> Known | None:
        try:
            header = record.read_header(path)
        except (RecordError, OSError):
            return None
        if header.key != self._key or len(header.tokens) % 4 or len(header.text_tokens) % 4:
            return None
        known = Known(path, header, _tokens(header.tokens))
        every = np.concatenate([known.tokens, _tokens(header.text_tokens)])
        return known if every.size and every.min() >= 0 and every.max() < self._num_vocab else None

    # --- to a worker ---

    def fetch(self, prompt: Sequence[int]) -> None:
        """Read the record that shares most with the prompt, if it is more than the last prompts do.

        What those share is in memory, so a conversation that goes on reads nothing. Blocks on the disk.
        """
        if not self._known:
            return
        wanted = np.array(prompt[:-1], np.int32)
        prompts, self._prompts = self._prompts, (wanted, *self._prompts)[:MOST_PROMPTS]
        matches = [(_shared(one.tokens, wanted), one) for one in self._known]
        useful = [match for match in matches if self._is_worth_it(*match)]
        if not useful:
            return
        shared, best = max(useful, key=lambda match: match[0])
        if shared <= self._num_at_hand(wanted, prompts):
            return
        # Not `remove`: `forget` may have replaced the list.
        self._known = [one for one in self._known if one is not best]
        try:
            arrays = record.read(best.path, best.header)
            os.utime(best.path)
        except (RecordError, OSError, MemoryError) as exc:
            _say(f"a conversation is computed anew: {type(exc).__name__}: {exc}")
            self._seen = [one for one in self._seen if one is not best]
            if isinstance(exc, RecordError):
                _delete(best.path)
            return
        self._fetched.put(Fetched(best, arrays, wanted.tolist(), shared))

    def _num_at_hand(self, wanted: Tokens, prompts: Iterable[Tokens]) -> int:
        """How many of these tokens memory should have, of these prompts or of what was read for them."""
        matches = [(_shared(one, wanted), one.size) for one in prompts]
        return max((shared for shared, size in matches if self._decoder.can_restore(size, shared)), default=0)

    def _is_worth_it(self, shared: int, known: Known) -> bool:
        num_tokens = len(known.tokens)
        is_enough = shared >= LEAST_TOKENS and shared * MOST_UNUSED >= num_tokens
        return is_enough and self._decoder.can_restore(num_tokens, shared) and self._is_young(known.path)

    def _is_young(self, path: Path) -> bool:
        """Not over age; what was, the daemon may have deleted meanwhile."""
        try:
            return not folder.is_older(self._archive.max_age_s, path.stat().st_mtime)
        except OSError:
            return False

    def fetched(self, num_known: Callable[[list[int]], int]) -> Iterator[Parked]:
        """What was read since the last time, is a state of this model, and more of its prompt than is known.

        `num_known` says how many tokens at the start of a prompt are.
        """
        while not self._fetched.empty():
            one = self._fetched.get()
            if one.shared <= num_known(one.prompt):
                # Another prompt may begin with more of it.
                self._known.append(one.known)
                continue
            tokens = one.known.tokens.tolist()
            state = self._decoder.unpack(one.arrays, len(tokens))
            if state is not None:
                yield Parked(tokens, time.time(), outlives=True, state=state)

    # --- from a worker ---

    def save(self, kept: Iterable[Kept], transcripts: Transcripts, within_s: float) -> Saved:
        """Write these, the last used first, as far as age, time and room allow; what they cover goes.

        Takes as much memory as one of them, and blocks for as long as it is given and one piece more.
        """
        saver = _Saver(self._archive, self._key, time.monotonic() + within_s)
        try:
            for one in kept:
                is_young = not folder.is_older(self._archive.max_age_s, one.used_at)
                is_worth_it = is_young and len(one.tokens) >= LEAST_TOKENS
                if is_worth_it and not saver.save(one, self._decoder, transcripts):
                    break
            self._drop_covered(saver.saved)
        except (OSError, MemoryError) as exc:
            _say(f"conversations cannot be saved: {exc}")
        others = [one for one in self._seen if one.path not in saver.saved]
        self._seen = [*others, *self._look_at(saver.saved)]
        return Saved(len(saver.saved), saver.num_bytes)

    def _drop_covered(self, saved: dict[Path, Tokens]) -> None:
        """Nobody would ask for the beginning of a longer one."""
        for old in list(self._seen):
            is_covered = any(_shared(old.tokens, new) == len(old.tokens) for new in saved.values())
            if is_covered and old.path not in saved:
                old.path.unlink(missing_ok=True)
                self._seen = [one for one in self._seen if one is not old]


class _Saver:
    """Writes records until its time is over."""

    def __init__(self, archive: Archive, key: bytes, deadline: float) -> None:
        self._archive = archive
        self._folder = Path(archive.folder)
        self._key = key
        self._deadline = deadline
        self._used_at = math.inf
        """When the last one was that came."""
        self.saved: dict[Path, Tokens] = {}
        self.num_bytes = 0

    def save(self, kept: Kept, decoder: Decoder, transcripts: Transcripts) -> bool:
        """False if there is no time left; one that there is no room for is left out. Raises `OSError`."""
        # Those that come first were used last, though clocks may be set.
        self._used_at = min(kept.used_at, self._used_at - 0.001)
        tokens = np.array(kept.tokens, np.int32)
        folder.make(self._folder)
        path = self._folder / folder.name_of(self._key, _raw(tokens))
        if not self._is_there(path, tokens):
            arrays = decoder.pack(kept.state())
            header = self._header(tokens, transcripts.of(kept.tokens), arrays)
            if not self._make_room(path, record.num_bytes(header)):
                return True
            if not record.write(path, header, arrays, self._is_late):
                return False
        self.num_bytes += path.stat().st_size
        os.utime(path, (self._used_at, self._used_at))
        self.saved[path] = tokens
        return True

    def _is_there(self, path: Path, tokens: Tokens) -> bool:
        """It was written before, and can be read."""
        try:
            header = record.read_header(path)
        except (RecordError, OSError):
            return False
        return header.key == self._key and header.tokens == _raw(tokens)

    def _header(self, tokens: Tokens, transcript: Transcript | None, arrays: record.Arrays) -> Header:
        forms = tuple(map(record.Form.of, arrays))
        text, text_tokens = (transcript.text, transcript.tokens) if transcript else ("", ())
        return Header(self._key, _raw(tokens), forms, text, _raw(np.array(text_tokens, np.int32)))

    def _make_room(self, path: Path, num_bytes: int) -> bool:
        """Others go that were used before it, and so none of those just saved."""
        has_room = folder.prune(self._archive, folder.Entry(path, num_bytes, self._used_at))
        return has_room and shutil.disk_usage(self._folder).free - num_bytes >= BYTES_FREE

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline


def key_of(archive: Archive, load: Load, maker: str) -> bytes:
    """Of all that a state depends on besides its tokens: settings that are not known to be free count."""
    settings = {
        name: value for name, value in msgspec.structs.asdict(load).items() if name not in FREE_SETTINGS
    }
    facts = (record.VERSION, maker, sys.byteorder, archive.digest, settings)
    return hashlib.sha256(msgspec.msgpack.encode(facts, order="deterministic")).digest()


def _raw(tokens: Tokens) -> bytes:
    return tokens.astype("<i4").tobytes()


def _tokens(raw: bytes) -> Tokens:
    return np.frombuffer(raw, "<i4").astype(np.int32)


def _shared(one: Tokens, other: Tokens) -> int:
    """Number of tokens at the start that are equal."""
    end = min(one.size, other.size)
    differ = one[:end] != other[:end]
    return int(differ.argmax()) if differ.any() else end


def _delete(path: Path) -> None:
    """What is damaged, so that it is written anew; if it cannot be, it stays damaged."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _say(text: str) -> None:
    """Into the daemon's log; nothing of what was said in a conversation."""
    print(text, file=sys.stderr, flush=True)
