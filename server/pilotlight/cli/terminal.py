"""What may go to a terminal, and whether there is one."""

from typing import TextIO

_CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - set(map(ord, "\n\t")))


def plain(text: str) -> str:
    """A stranger's text without what a terminal would act on: that could fill its clipboard, or hide text.

    Lines and tabs stay. Each character is judged alone, so a text may come in pieces.
    """
    return text.translate(_CONTROLS)


def is_terminal(stream: TextIO | None) -> bool:
    """None: the program was started without this stream."""
    return stream is not None and stream.isatty()
