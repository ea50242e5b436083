"""What programs call themselves."""

import pytest

from pilotlight.api.apps import app_of

OBSIDIAN = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) obsidian/1.5.3 "
    "Chrome/120.0.6099.283 Electron/28.2.3 Safari/537.36"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.mark.parametrize(
    ("user_agent", "app"),
    [
        ("curl/8.5.0", "curl"),
        ("OpenAI/Python 3.52.0", "OpenAI/Python"),
        ("AsyncOpenAI/Python 3.52.0", "AsyncOpenAI/Python"),
        ("python-httpx/0.28.1", "python-httpx"),
        ("node", "node"),
        (OBSIDIAN, "obsidian"),
        (FIREFOX, "browser"),
        ("", "unknown"),
        ("((((", "unknown"),
        ("\x00\u202e\n", "unknown"),
        ('evil"} 1\npilotlight_x 2', "evil"),
        ("a" * 10_000, "a" * 32),
        ("a/" + "b" * 10_000, "a/" + "b" * 32),
    ],
)
def test_the_name_a_program_gives_itself(user_agent: str, app: str) -> None:
    """Without versions and browsers' many names; of plain letters, and short, whatever it sends."""
    assert app_of(user_agent) == app
