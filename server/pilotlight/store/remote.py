"""GGUF models of a repository of the hub that nobody downloaded: their sizes, and the header of one.

What they are called and which files belong together is as in a pull (`selection`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from msgspec import Struct

from pilotlight.errors import BadRequest, PullFailed
from pilotlight.registry.gguf import Header, read_header
from pilotlight.registry.reader import HeaderError
from pilotlight.store import hub
from pilotlight.store.reference import HubReference
from pilotlight.store.retry import Interrupted
from pilotlight.store.selection import Choice, ggufs, means

PATIENCE_S = 20.0


class Remote(Struct, frozen=True):
    """One GGUF model; of several shards, `file` is the first, and `num_bytes` are those of all."""

    file: str
    num_bytes: int
    url: str


def models_of(reference: HubReference) -> tuple[Remote, ...]:
    """Those that are meant, smallest first. Raises `Error`."""
    with _at_once(reference):
        listing = hub.list_files(reference, PATIENCE_S)
    found = _meant(reference, ggufs(sorted(listing.files)))
    sizes = [sum(listing.files[path].size or 0 for path in choice.files) for choice in found]
    remotes = [
        Remote(choice.files[0], size, listing.url(choice.files[0]))
        for choice, size in zip(found, sizes, strict=True)
        if size and not choice.num_missing
    ]
    if not remotes:
        what = f"GGUF file that {reference.pick!r} means" if reference.pick else "GGUF files"
        raise BadRequest(f"{reference.repo} has no {what}")
    return tuple(sorted(remotes, key=lambda one: one.num_bytes))


def _meant(reference: HubReference, choices: list[Choice]) -> list[Choice]:
    """The one that a pull would get, else all with that in their file's name."""
    pick = reference.pick
    if not pick:
        return choices
    exact = [choice for choice in choices if means(choice, pick)]
    return exact or [choice for choice in choices if pick.lower() in choice.files[0].lower()]


def header_of(reference: HubReference, remote: Remote) -> Header:
    """What the file says of itself; only its beginning is fetched. Raises `Error`."""
    with _at_once(reference):
        from huggingface_hub.utils import (  # type: ignore[attr-defined]  # made at run time
            get_session,
            hf_raise_for_status,
        )

        stream = get_session().stream("GET", remote.url, headers=hub.headers(), timeout=PATIENCE_S)
        with stream as response:
            hf_raise_for_status(response)
            try:
                return read_header(cast(BinaryIO, _Body(response.iter_bytes())))
            except HeaderError as exc:
                raise PullFailed(f"{reference.repo}: {remote.file}: {exc}") from exc


class _Body:
    """The bytes of an answer, as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def read(self, count: int) -> bytes:
        """As many as asked for, fewer only at the end."""
        pieces = [self._held]
        missing = count - len(self._held)
        while missing > 0 and (piece := next(self._pieces, b"")):
            pieces.append(piece)
            missing -= len(piece)
        found = b"".join(pieces)
        self._held = found[count:]
        return found[:count]


@contextmanager
def _at_once(reference: HubReference) -> Iterator[None]:
    """Somebody waits for the answer: what would be tried again is told."""
    try:
        with hub.mapped(reference):
            yield
    except Interrupted as exc:
        raise PullFailed(str(exc)) from exc
