"""Calls to addresses that others have named: the checked address, in time, over TLS that is checked."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme

from shared.outbound import Caller, CallFailed, Forbidden
from tests.subscriber import Subscriber

SHORT_S = 0.5
LONG_S = 60
NAME = "shop.example"


def leading_to(*addresses: str) -> Any:
    """Return a resolver that gives one of these addresses at each look, the last one for ever."""
    left = list(addresses)

    def resolve(_host: str, port: int, **_: Any) -> list[Any]:
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    return resolve


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve one connection with `answer` on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        thread.join(LONG_S)


def test_a_name_that_leads_elsewhere_after_the_check_is_refused() -> None:
    """A name with a public address at registration and a private one at delivery is not called."""
    taker = Subscriber()
    caller = Caller(allow_private=False, resolve=leading_to("93.184.215.14", "127.0.0.1"))
    url = f"https://{NAME}:{taker.port}/"
    caller.check(url)
    with pytest.raises(Forbidden, match="not public"):
        caller.send("POST", url, b"{}", {})
    assert taker.calls == []
    taker.close()


def test_the_address_that_was_checked_is_the_one_that_is_called() -> None:
    """A second look at the name would lead elsewhere; there is none."""
    looks: list[str] = []
    taker = Subscriber()

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        looks.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    caller = Caller(allow_private=True, resolve=resolve)
    assert caller.send("POST", f"http://{NAME}:{taker.port}/a?b=c", b"{}", {"X-Test": "1"}) == 200
    assert looks == [NAME]
    (call,) = taker.calls
    assert (call.path, call.headers["Host"]) == ("/a?b=c", f"{NAME}:{taker.port}")
    taker.close()


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would look the name up by itself, and could lead anywhere."""
    taker, proxy = Subscriber(), Subscriber()
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert Caller(allow_private=True).send("POST", taker.url, b"{}", {}) == 200
    assert (len(taker.calls), proxy.calls) == (1, [])
    for each in (taker, proxy):
        each.close()


def test_who_sends_a_byte_now_and_then_is_left() -> None:
    """The time is for the whole call: a byte before each single timeout does not stretch it."""
    gone = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.send(b"HTTP/1.1 200 OK\r\nX: ")
        while not gone.wait(SHORT_S / 10):
            try:
                connection.send(b"x")
            except OSError:
                gone.set()

    with serving(drip) as port, pytest.raises(CallFailed, match="timed out"):
        Caller(allow_private=True, timeout_s=SHORT_S).send("POST", f"http://127.0.0.1:{port}/", b"", {})
    assert gone.is_set(), "the connection was closed"


def test_an_endless_answer_is_not_read() -> None:
    """A few KiB at most are taken; the status has said all."""
    sent = [0]

    def pour(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                sent[0] += connection.send(b"x" * 65536)
        except OSError:
            return

    with serving(pour) as port:
        assert Caller(allow_private=True).send("POST", f"http://127.0.0.1:{port}/", b"", {}) == 200
    assert 0 < sent[0] < 100_000_000


@pytest.mark.parametrize(
    "raw", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200, b"HTTP/1.1 xyz\r\n\r\n"]
)
def test_what_is_no_answer_is_a_failure(raw: bytes) -> None:
    """Nothing that comes back ends anything but the call."""

    def answer(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.send(raw)

    with serving(answer) as port, pytest.raises(CallFailed):
        Caller(allow_private=True).send("POST", f"http://127.0.0.1:{port}/", b"", {})


def test_nobody_listening_is_a_failure() -> None:
    """A refused connection is tried again later as anything else."""
    taker = Subscriber()
    taker.close()
    with pytest.raises(CallFailed, match="refused"):
        Caller(allow_private=True).send("POST", taker.url, b"", {})


@pytest.mark.parametrize(("certified", "is_called"), [(NAME, True), ("other.example", False)])
def test_certificates_are_checked_against_the_name(certified: str, is_called: bool) -> None:  # noqa: FBT001 - a table's column
    """The address was checked and is connected to, and the certificate has to be the name's."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(certified).configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    def answer(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                request = b""
                while not request.endswith(b"{}"):
                    request += secured.recv(1024)
                secured.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except OSError:
            return

    with serving(answer) as port:
        caller = Caller(allow_private=True, resolve=leading_to("127.0.0.1"), tls=trusting)
        if is_called:
            assert caller.send("POST", f"https://{NAME}:{port}/", b"{}", {}) == 200
        else:
            with pytest.raises(CallFailed, match="TLS"):
                caller.send("POST", f"https://{NAME}:{port}/", b"{}", {})
