"""Who asks: every request has a principal."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request; idempotency keys and the history are in its name."""

    id: str


LOCAL = Principal("local")


def current_principal() -> Principal:
    """The caller of this request: `local`, as long as the service is for loopback only."""
    return LOCAL
