"""What goes to a terminal."""

import pytest

from pilotlight.cli.downloading import Screen
from pilotlight.cli.terminal import is_terminal, plain
from pilotlight.store.events import Failed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\n\ttwo", "one\n\ttwo"),
        ("caf\u00e9 \u2615\ufe0f \u0645\u06cc\u200c\u0634\u0648\u062f", None),
        ("\x1b]52;c;ZXZpbA==\x07", "]52;c;ZXZpbA=="),
        ("\x9b2J\x7f\x00", "2J"),
        ("harmless\rrm -rf\r\n\b", "harmlessrm -rf\n"),
    ],
)
def test_what_a_terminal_acts_on_is_left_out(text: str, shown: str | None) -> None:
    """Lines, tabs and all that is text stay."""
    assert plain(text) == (text if shown is None else shown)


def test_a_stream_that_is_closed_is_no_terminal() -> None:
    """As `<&-` in a shell, or a service."""
    assert not is_terminal(None)


def test_a_failed_pull_is_told_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason may be a server's."""
    with Screen() as screen:
        screen.show(Failed("no \x1b]0;title\x07such file", "pull_failed", 502))
    assert capsys.readouterr().err == "pilotlight: no ]0;titlesuch file\n"
