"""JSON as lines: each is one for every reader, also for those that know more ends of lines than JSON has.

Knows bytes, not what they say.
"""

_LINE_ENDS = {character.encode(): f"\\u{ord(character):04x}".encode() for character in "\x85\u2028\u2029"}
"""What JSON has as it is, and readers of lines take for the end of one."""


def lined(data: bytes) -> bytes:
    """The same JSON, in one line for everybody."""
    if not data.isascii():
        for character, escaped in _LINE_ENDS.items():
            data = data.replace(character, escaped)
    return data
