"""The kernel's own word for a plug that is pulled; socket pairs stand in for it, and are filtered like it."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from pilotlight.power import uevents
from pilotlight.power.machine import ThisMachine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uevents are Linux's")

NULL = Path("/sys/class/mem/null/uevent")
"""Of a device that is no power supply; root may have the kernel send an event of it."""


class Kernel:
    """Sends events to `receiver`, which filters them."""

    def __init__(self) -> None:
        self._sender, self.receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.receiver.setblocking(False)
        uevents.attach_filter(self.receiver)

    def send(
        self, device: str, action: str = "change", subsystem: str = "power_supply", **supply: object
    ) -> None:
        """As `lib/kobject_uevent.c` writes them; `supply` are properties as in `POWER_SUPPLY_ONLINE`."""
        path = f"/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0003:00/{subsystem}/{device}"
        fields = {"ACTION": action, "DEVPATH": path, "SUBSYSTEM": subsystem}
        fields |= {f"POWER_SUPPLY_{name}": str(value) for name, value in {"NAME": device, **supply}.items()}
        parts = [f"{action}@{path}", *(f"{name}={value}" for name, value in fields.items()), "SEQNUM=7"]
        self.send_bytes("\0".join([*parts, ""]).encode())

    def send_bytes(self, message: bytes) -> None:
        self._sender.send(message)

    def received(self) -> int:
        """Messages that were let through."""
        for number in range(100):
            try:
                self.receiver.recv(uevents.LONGEST)
            except BlockingIOError:
                return number
        raise AssertionError("no end of messages")

    def close(self) -> None:
        self._sender.close()
        self.receiver.close()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.close()


def test_only_changes_of_power_supplies_wake_anybody(kernel: Kernel) -> None:
    """The kernel itself drops the rest."""
    kernel.send("card0", subsystem="drm")
    kernel.send("BAT0", action="add")
    kernel.send_bytes(b"")
    kernel.send_bytes(b"change@/" + b"x" * 4000)
    assert kernel.received() == 0
    kernel.send("AC", ONLINE=0)
    assert kernel.received() == 1


def test_what_rules_depend_on_is_news_once(kernel: Kernel) -> None:
    """Gauges that only measured anew are none, and neither are the batteries of mice."""
    changes = uevents.Changes(kernel.receiver)
    heard = []
    for supply in (
        {"ONLINE": 1},
        {"ONLINE": 0, "VOLTAGE_NOW": 1},
        {"ONLINE": 0, "VOLTAGE_NOW": 2},
        {"CAPACITY": 12, "SCOPE": "Device"},
    ):
        kernel.send("AC", **supply)
        heard.append(changes.heard())
    assert heard == [True, True, False, False]


def test_each_supply_is_compared_with_itself(kernel: Kernel) -> None:
    """All that has come is one answer."""
    changes = uevents.Changes(kernel.receiver)
    kernel.send("AC", ONLINE=0)
    kernel.send("BAT0", STATUS="Discharging", CAPACITY=80)
    assert changes.heard()
    kernel.send("AC", ONLINE=0)
    kernel.send("BAT0", STATUS="Discharging", CAPACITY=80)
    assert not changes.heard()
    kernel.send("BAT0", STATUS="Discharging", CAPACITY=79)
    assert changes.heard()


@pytest.mark.parametrize("text", [b"", b"\0", b"=\0==\0\xff\xfe=1", b"POWER_SUPPLY_NAME=" + b"x" * 5000])
def test_what_is_no_event_breaks_nothing(kernel: Kernel, text: bytes) -> None:
    """Whatever follows the path."""
    kernel.send_bytes(b"change@/devices/power_supply/AC\0" + text)
    assert uevents.Changes(kernel.receiver).heard() is text.startswith(b"POWER")


async def test_who_listens_is_told(kernel: Kernel) -> None:
    """Again and again."""
    heard = 0
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:

            def tell() -> None:
                nonlocal heard
                heard += 1
                if heard == 3:
                    tasks.cancel_scope.cancel()
                kernel.send("AC", ONLINE=heard % 2)

            tasks.start_soon(uevents.hear, kernel.receiver, tell)
            kernel.send("AC", ONLINE=0)
    assert heard == 3


async def test_a_machine_that_is_a_folder_says_nothing(tmp_path: Path) -> None:
    """Events are of the one that we run on."""
    with anyio.fail_after(10):
        await ThisMachine(tmp_path).listen(lambda: None)


def test_the_kernel_drops_what_others_hear(plain: socket.socket) -> None:
    """A real event of a device that is no supply: another listener hears it, ours does not."""
    with uevents.open_socket() as ours:
        NULL.write_text("change")
        while b"/mem/null" not in plain.recv(uevents.LONGEST):
            pass
        with pytest.raises(BlockingIOError):
            ours.recv(uevents.LONGEST)


@pytest.fixture
def plain() -> Iterator[socket.socket]:
    """A listener without a filter."""
    if not os.access(NULL, os.W_OK):
        pytest.skip("only root may have the kernel send an event")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, uevents.NETLINK_KOBJECT_UEVENT) as sock:
        sock.settimeout(10)
        sock.bind((0, uevents.KERNEL_GROUP))
        yield sock
