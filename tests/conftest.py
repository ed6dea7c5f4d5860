"""What all tests share: no network, and the references' small models."""

import ipaddress
import os
import socket

import pytest

# The hub's client looks at these when it is imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """A test that reaches beyond this machine fails."""
    connect = socket.socket.connect

    def local_only(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise ConnectionRefusedError(f"tests must not reach the network: {address}")
        return connect(self, address)

    socket.socket.connect = local_only
    yield
    socket.socket.connect = connect
