"""The server of a process's health: where it listens."""

import json
import socket
from contextlib import closing
from urllib.request import urlopen

import pytest

from shared.health import HealthServer, Pulse

CALL_S = 60


def can_bind(host: str) -> bool:
    """Whether this machine has the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family)) as tried:
        try:
            tried.bind((host, 0))
        except OSError:
            return False
    return True


@pytest.mark.parametrize(("host", "asked"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")])
def test_health_is_served_at_every_address_that_host_may_be(host: str, asked: str) -> None:
    """HOST is the API's address and the workers', in either version of IP."""
    if not (can_bind(host) and can_bind(asked.strip("[]"))):
        pytest.skip(f"no {host} on this machine")
    port = HealthServer("test", Pulse(), lambda: (True, {})).start(host, 0)
    with urlopen(f"http://{asked}:{port}/readyz", timeout=CALL_S) as answer:
        assert json.load(answer)["status"] == "ready"
