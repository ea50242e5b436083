"""Where the daemon listens."""

import errno
import ipaddress
import socket
import sys

from pilotlight.config import Config
from pilotlight.registry.discovery import Discovery, holder


def bind(config: Config) -> socket.socket:
    """A listening socket, before anything is loaded: a taken port must cost nothing. Raises `OSError`."""
    host, port = config.server.host, config.server.port
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            # On Windows this option would let two servers share the port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def is_port_refused(exc: OSError) -> bool:
    """It is taken, or not for this user, and stays so. Else the host is why: an address may come a moment
    later, as after the start of the machine."""
    return exc.errno == errno.EADDRINUSE or isinstance(exc, PermissionError)


def why_not_bound(config: Config, exc: OSError) -> str:
    """One line; names who holds the port when that can be known."""
    host, port = config.server.host, config.server.port
    is_taken = exc.errno == errno.EADDRINUSE
    why = f"is in use by {_held_by(config)}" if is_taken else f"cannot be bound: {exc.strerror}"
    advice = "choose another with --port, or --port 0 for any free one"
    if not is_port_refused(exc):
        advice = "choose an address of this machine with --host"
    return f"{host}:{port} {why}; {advice}"


def _held_by(config: Config) -> str:
    url = _format_url(config.server.host, config.server.port)
    for running in Discovery(config.state_dir).living():
        if running.url == url:
            return f"another Pilotlight (pid {running.pid}, version {running.version})"
    return holder(config.server.port) or "another program"


def url_of(sock: socket.socket) -> str:
    """For programs on this machine."""
    host, port = sock.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:  # it listens on all addresses, and that one is none
        host = "::1" if sock.family == socket.AF_INET6 else "127.0.0.1"
    return _format_url(host, port)


def _format_url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
