"""Call addresses that others have named: public ones only, the very one that was checked, for a short time.

Whoever may name an address could else let us call what only we can reach (server-side request forgery).
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 5.0  # for everything from the first connection to the status of the answer
MAX_URL = 2048
MAX_ANSWER_BYTES = 4096  # nobody reads it; taken so that the other side can finish writing
MAX_ADDRESSES = 3  # of those that a name has, so many are tried
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Beside what Python calls not global, in its older versions too: Azure's platform service, protocol
# assignments (Oracle's metadata among them), NAT64 of one's own network, site-local addresses.
INSIDE = [
    ipaddress.ip_network(each) for each in ("168.63.129.16/32", "192.0.0.0/24", "64:ff9b:1::/48", "fec0::/10")
]

Resolve = Callable[..., list[Any]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Forbidden(Exception):
    """An address that we do not call; the message is fit for whoever named it."""


class CallFailed(Exception):
    """Nothing was answered: the call may have had its effect or not."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart."""

    is_tls: bool
    host: str
    port: int
    path: str  # and the query


class Caller:
    """Calls addresses that others have named; with `allow_private` also private ones, and over plain HTTP.

    Neither proxies nor anything else of the environment is used, and no redirect is followed.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        timeout_s: float = TIMEOUT_S,
        resolve: Resolve = socket.getaddrinfo,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Trust the system's certificate authorities unless told otherwise."""
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._tls = tls or ssl.create_default_context()

    def check(self, url: str) -> None:
        """Raises Forbidden unless the URL is one that may be called, as things stand now."""
        target = self._target(url)
        try:
            self._addresses(target)
        except OSError:
            raise Forbidden("its host cannot be found") from None

    def send(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> int:
        """Send a request and return the answer's status. Raises Forbidden and CallFailed."""
        until = time.monotonic() + self._timeout_s
        target = self._target(url)
        try:
            connection = _Connection(target, self._addresses(target), until, self._tls)
        except OSError:
            raise CallFailed("the host cannot be found") from None
        # A timeout of a socket is for each of its reads: who sends a byte now and then would never end.
        watch = threading.Timer(max(0.0, until - time.monotonic()), connection.abort)
        watch.daemon = True
        watch.start()
        try:
            return _status(connection, method, target.path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            late = time.monotonic() >= until
            raise CallFailed("timed out" if late else _reason(error)) from None
        finally:
            watch.cancel()
            connection.close()

    def _target(self, url: str) -> Target:
        usable = url.isascii() and url.isprintable() and not {" ", "\\", "#"} & set(url)
        if not usable or len(url) > MAX_URL:
            raise Forbidden("must be a plain URL in ASCII, without a fragment")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise Forbidden("must be a URL with a port from 1 to 65535") from None
        schemes = ("https", "http") if self._allow_private else ("https",)
        if parts.scheme not in schemes or not parts.hostname:
            raise Forbidden("must start with https://")
        if "@" in parts.netloc:
            raise Forbidden("must hold no user name and no password")
        if port == 0:
            raise Forbidden("must be a URL with a port from 1 to 65535")
        is_tls = parts.scheme == "https"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(is_tls, parts.hostname, port or (443 if is_tls else 80), path)

    def _addresses(self, target: Target) -> list[str]:
        """What the host's name stands for now. Raises Forbidden when any of it is not public, and OSError."""
        try:
            found = self._resolve(target.host, target.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # a label of a name that is too long
            raise OSError from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not self._allow_private and not all(map(is_public, addresses)):
            raise Forbidden("its host has an address that is not public")
        return addresses[:MAX_ADDRESSES]


def is_public(text: str) -> bool:
    """Whether an address is one of the internet's: not private, local, multicast, reserved or of metadata."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if inner := _inner(address):
        return is_public(str(inner))
    is_inside = any(address in network for network in INSIDE)
    return address.is_global and not (address.is_multicast or address.is_reserved or is_inside)


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


class _Connection(http.client.HTTPConnection):
    """A connection to addresses that were checked, whatever the name stands for by now."""

    def __init__(self, target: Target, addresses: list[str], until: float, tls: ssl.SSLContext) -> None:
        super().__init__(target.host, target.port)
        self.default_port = 443 if target.is_tls else 80
        self._addresses, self._until = addresses, until
        self._context = tls if target.is_tls else None
        self.is_aborted = False

    def connect(self) -> None:
        """Try the addresses in turn."""
        for number, address in enumerate(self._addresses, 1):
            try:
                self.sock = socket.create_connection((address, self.port), self._left_s())
                break
            except OSError:
                if number == len(self._addresses):
                    raise
        if self._context:
            self.sock.settimeout(self._left_s())
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)
        self.sock.settimeout(self._left_s())

    def abort(self) -> None:
        """End whatever goes on, from another thread."""
        self.is_aborted = True
        with suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def _left_s(self) -> float:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s


def _status(connection: _Connection, method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
    connection.request(method, path, body, {"Connection": "close", **headers})
    answer = connection.getresponse()
    if connection.is_aborted:  # what was read of the headers then looks like all of them
        raise TimeoutError
    with suppress(OSError, http.client.HTTPException):
        answer.read(MAX_ANSWER_BYTES)
    return answer.status


def _reason(error: Exception) -> str:
    """What went wrong, without anything that the other side has sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, ssl.SSLError):
        return "TLS: no connection"
    return "no HTTP answer" if isinstance(error, http.client.HTTPException) else type(error).__name__
