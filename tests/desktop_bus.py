"""A system bus of our own, and services on it that answer as the desktop's do."""

import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jeepney
from jeepney.io import blocking

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/>
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy>
</busconfig>"""

MEMBER = jeepney.HeaderFields.member
SENDER = jeepney.HeaderFields.sender


@contextmanager
def bus(folder: Path) -> Iterator[str]:
    """Its address, for DBUS_SYSTEM_BUS_ADDRESS."""
    config = folder / "bus.conf"
    config.write_text(CONFIG.format(path=folder / "bus"))
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        try:
            yield daemon.stdout.readline().strip()
        finally:
            daemon.terminate()


@dataclass
class Service:
    """What it answers, and the holds it was asked for: by whom, and with which words."""

    bus: str
    properties: Mapping[str, Any]
    grants: bool = True
    holds: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def answer(self, question: Any) -> Any:
        """None if it is told to end."""
        member = question.header.fields.get(MEMBER)
        if member == "GetAll":
            return jeepney.new_method_return(question, "a{sv}", (self.properties,))
        if member == "HoldProfile":
            self.holds.append((question.header.fields[SENDER], question.body))
            if not self.grants:
                return jeepney.new_error(question, "org.freedesktop.DBus.Error.AccessDenied")
            return jeepney.new_method_return(question, "u", (len(self.holds),))
        return None

    @property
    def num_held(self) -> int:
        """Granted, and the owners are still there."""
        with blocking.open_dbus_connection(bus=self.bus) as connection:
            owners = [jeepney.message_bus.NameHasOwner(sender) for sender, _ in self.holds if self.grants]
            return sum(connection.send_and_get_reply(owner, timeout=10).body[0] for owner in owners)


@contextmanager
def service(bus: str, name: str, properties: Mapping[str, Any], *, grants: bool = True) -> Iterator[Service]:
    """One that answers every question with these, and grants holds or refuses them."""
    said = Service(bus, properties, grants)
    connection = blocking.open_dbus_connection(bus=bus)
    connection.send_and_get_reply(jeepney.message_bus.RequestName(name), timeout=10)

    def serve() -> None:
        while True:
            question = connection.receive()
            if question.header.message_type is not jeepney.MessageType.method_call:
                continue
            if (answer := said.answer(question)) is None:
                return
            connection.send(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield said
    finally:
        with blocking.open_dbus_connection(bus=bus) as other:
            address = jeepney.DBusAddress("/", bus_name=name, interface="test.Test")
            other.send(jeepney.new_method_call(address, "End"))
            thread.join(10)
        connection.close()
