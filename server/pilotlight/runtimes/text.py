"""Turns a sequence's token bytes into text that may be shown: whole UTF-8 characters, stop strings cut out.

Knows nothing of tokens or models. One `TextStream` per sequence.
"""

import codecs


class TextStream:
    """Holds back what cannot be shown yet: half a character, or a tail that may become a stop string."""

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False
        """A stop string was met; nothing more will come."""

    def push(self, piece: bytes) -> str:
        """Add a token's bytes; return the text that became certain (often one token behind)."""
        text = self._decoder.decode(piece)
        if not self._stop:
            return text
        return self._cut(self._held + text)

    def flush(self) -> str:
        """The end: whatever was held back comes out, half a character as U+FFFD."""
        if self.stopped:
            return ""
        text = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        # The last bytes may complete a stop string that only the flush makes visible.
        return self._cut(text, final=True) if self._stop else text

    def _cut(self, text: str, *, final: bool = False) -> str:
        """Text before the stop string that is complete first, minus a tail that could still grow into one."""
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            _, start = min(found)
            return text[:start]
        keep = 0 if final else max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
