"""What programs call themselves in the User-Agent header: a stranger's word, so short and of plain letters.

Pure.
"""

import re

LONGEST_HEADER = 512

BROWSERS = frozenset(
    ("mozilla", "applewebkit", "chrome", "chromium", "safari", "gecko", "firefox", "electron", "edg", "opr",
     "version", "mobile")
)  # fmt: skip
"""What browsers, and apps that are built of one, call themselves besides."""

BROWSER, UNKNOWN = "browser", "unknown"

_COMMENT = re.compile(r"\([^()]*\)")
_NAME = re.compile(r"[A-Za-z][\w.-]{0,31}(/[A-Za-z][\w.-]{0,31})?", re.ASCII)
"""With what follows a slash, unless that is a version: `OpenAI/Python`."""


def app_of(user_agent: str) -> str:
    """The program's name, without its version."""
    words = _COMMENT.sub(" ", user_agent[:LONGEST_HEADER]).split()
    names = [match[0] for word in words if (match := _NAME.match(word))]
    own = [name for name in names if name.partition("/")[0].lower() not in BROWSERS]
    if own:
        return own[0]
    return BROWSER if names else UNKNOWN
