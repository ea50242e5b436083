"""What is told of an address that cannot be listened at."""

import errno
import os
import socket
from pathlib import Path

import pytest

from pilotlight.address import is_port_refused, why_not_bound
from resolving import resolve

ELSEWHERE = [
    OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)),
    socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
]


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EACCES])
def test_another_port_is_advised_where_that_helps(tmp_path: Path, number: int) -> None:
    """It is taken, or one of those that only root may have."""
    refused = OSError(number, os.strerror(number))
    told = why_not_bound(resolve(tmp_path, port=80), refused)
    assert is_port_refused(refused)
    assert "127.0.0.1:80 " in told and "--port 0" in told and "--host" not in told


@pytest.mark.parametrize("refused", ELSEWHERE, ids=["address", "name"])
def test_another_host_is_advised_where_no_port_helps(tmp_path: Path, refused: OSError) -> None:
    """This machine does not have the address, or nobody knows the name."""
    told = why_not_bound(resolve(tmp_path, port=80), refused)
    assert not is_port_refused(refused)
    assert f"cannot be bound: {refused.strerror}" in told
    assert "--host" in told and "--port" not in told
