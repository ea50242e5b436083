"""The C library's heap: what is freed stays with the process until it is told to give it back."""

import ctypes
import sys
from contextlib import suppress


def give_back() -> None:
    """Hand all free pages to the system; where there is no glibc, nothing can be done."""
    if sys.platform == "linux":
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
