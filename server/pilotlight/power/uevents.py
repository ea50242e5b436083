"""What Linux says of itself when a plug is pulled: kernel events (uevents) of power supplies.

Hearing them needs no rights (`lib/kobject_uevent.c` lets everybody receive, and only root send), and costs
nothing while the kernel is silent: it drops events of other devices itself, by a socket filter. An event only
says that something may have changed; what is so is read from files, by `linux.Linux`.
"""

import array
import errno
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

import anyio
import structlog

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1
"""Those that the kernel multicasts itself; udev's own are another."""

SO_ATTACH_FILTER = 26
"""`asm-generic/socket.h`; Python's socket module does not have it everywhere."""

LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
"""Instructions of the classic packet filter (`linux/filter.h`): the word at an offset, and so on."""

CHANGED = b"chan"
"""How `change@` begins; devices that come and go are no change of the supply."""

SUPPLY = b"wer_"
"""Of `/power_supply/`, which is in the path of each."""
SEARCHED = 250
"""Bytes of a device's path in which the filter looks for that. Real ones are half as long."""

LONGEST = 8192
"""Of a message; the kernel makes none longer than 2 KiB of properties."""

DECIDING = ("ONLINE", "STATUS", "CAPACITY")
"""What rules may depend on. Gauges that only measure anew, every few seconds on some machines, wake nobody
else."""

log = structlog.get_logger()

State = tuple[str | None, ...]


async def listen(tell: Callable[[], None]) -> None:
    """Tell of each change until cancelled; returns at once where the kernel lets nobody listen."""
    try:
        sock = open_socket()
    except OSError as exc:
        log.info("changes of the power supply are not told here", reason=str(exc))
        return
    with sock:
        await hear(sock, tell)


async def hear(sock: socket.socket, tell: Callable[[], None]) -> None:
    """The same for an open socket that does not block."""
    changes = Changes(sock)
    while True:
        await anyio.wait_readable(sock)
        if changes.heard():
            tell()


@dataclass(slots=True)
class Changes:
    """What comes out of a socket; owns what was last heard of each supply."""

    sock: socket.socket
    _known: dict[str, State] = field(default_factory=dict)

    def heard(self) -> bool:
        """Take all that has come; whether something is other than it was."""
        has_news = False
        while True:
            try:
                has_news |= self._is_news(self.sock.recv(LONGEST))
            except BlockingIOError:
                return has_news
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                has_news = True  # some were lost, and nobody knows which

    def _is_news(self, message: bytes) -> bool:
        parts = message.decode(errors="replace").split("\0")
        fields = dict(part.split("=", 1) for part in parts if "=" in part)
        name = fields.get("POWER_SUPPLY_NAME")
        if name is None or fields.get("POWER_SUPPLY_SCOPE") == "Device":  # a mouse's own battery
            return False
        state = tuple(fields.get(f"POWER_SUPPLY_{one}") for one in DECIDING)
        before, self._known[name] = self._known.get(name), state
        return state != before


def open_socket() -> socket.socket:
    """One that hears the kernel, and does not block. Raises `OSError`."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_KOBJECT_UEVENT)
    try:
        sock.setblocking(False)
        with suppress(OSError):  # then every event wakes us: they are rare
            attach_filter(sock)
        sock.bind((0, KERNEL_GROUP))
    except OSError:
        sock.close()
        raise
    return sock


def attach_filter(sock: socket.socket) -> None:
    """Have the kernel drop what is no change of a power supply. Raises `OSError`."""
    program = array.array("B", b"".join(_program()))
    address, size = program.buffer_info()
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", size // 8, address))


def _program() -> list[bytes]:
    """The filter has no loops, so it looks for four bytes at each offset in turn; what lies behind the end
    of a message ends it with a no."""
    # A jump is at most 255 instructions long, so each look has its own way out.
    takes = (_if_at(offset, SUPPLY, LONGEST) for offset in range(len("change@"), SEARCHED))
    return [*_if_at(0, CHANGED, 0, is_met=False), *chain.from_iterable(takes), _instruction(RETURN, 0)]


def _if_at(offset: int, word: bytes, num_bytes: int, *, is_met: bool = True) -> list[bytes]:
    """The end, with so many bytes of the message, if the word is (or is not) at the offset."""
    return [
        _instruction(LOAD_WORD, offset),
        _instruction(JUMP_IF_EQUAL, int.from_bytes(word, "big"), skip_if=not is_met, skip_else=is_met),
        _instruction(RETURN, num_bytes),
    ]


def _instruction(code: int, value: int, *, skip_if: bool = False, skip_else: bool = False) -> bytes:
    """A `struct sock_filter`; a jump skips the next one."""
    return struct.pack("HBBI", code, skip_if, skip_else, value)
