"""What a setting has to be: a check returns what to use, or raises ValidationError with what it expects."""

import ipaddress
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

import fsspec
from marshmallow import ValidationError

from shared.money import CURRENCIES, DEFAULT_MAXIMUM_MINOR
from shared.payments import PAYMENT_METHODS

Check = Callable[[Any], Any]

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
LIVE_KEYS = ("sk_live_", "rk_live_")
SIGNING_SECRET_BYTES = 32  # as many as HS256's hash has: RFC 7518, section 3.2
HIGHEST_PORT = 65_535
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_BROKER = re.compile(r"(\[[^\[\]]+\]|[^\s:\[\]]+):([0-9]{1,5})")


def host(value: str) -> str:
    """Check that it is an IP address, or can be a host's name."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        labels = value.removesuffix(".").split(".")
        # What ends in a number is meant as an address, and is none.
        if labels[-1].isdigit() or not all(map(_LABEL.fullmatch, labels)):
            raise ValidationError("expected an IP address or a host's name") from None
    return value


def brokers(value: str) -> str:
    """Check that it is a list of hosts, each with its port."""
    for each in value.split(","):
        found = _BROKER.fullmatch(each)
        if not found or not 0 < int(found[2]) <= HIGHEST_PORT:
            raise ValidationError(f"expected host:port,host:port with ports from 1 to {HIGHEST_PORT}")
        host(found[1].strip("[]"))
    return value


def _split(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:  # its text may hold a piece of the value
        raise ValidationError(f"expected a URL whose port is between 0 and {HIGHEST_PORT}") from None
    return parts


def url(*schemes: str) -> Check:
    """Return a check for a URL of one of these schemes, with a port that can be one."""

    def check(value: str) -> str:
        parts = _split(value)
        if parts.scheme not in schemes or not parts.netloc:
            raise ValidationError(
                f"expected a URL that starts with {' or '.join(f'{s}://' for s in schemes)}"
            )
        return value

    return check


# The parameters that redis-py and Celery both take, with the values that mean the same to both.
_REDIS_TLS = {
    "ssl_cert_reqs": re.compile("none|optional|required"),
    "ssl_check_hostname": re.compile("true|false"),
    **dict.fromkeys(("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"), re.compile("/.+")),
    "ssl_password": re.compile(".+"),
}


def redis_url(value: str) -> str:
    """Check that it is the URL of a Redis: its path a database's number, its parameters those of TLS."""
    url("redis", "rediss")(value)
    parts = urlsplit(value)
    # The client would take the first database for what is no number.
    if not re.fullmatch(r"(/[0-9]{0,6})?", parts.path) or parts.fragment:
        raise ValidationError("expected a database's number as its path: redis://host:port/0")
    allowed = _REDIS_TLS if parts.scheme == "rediss" else {}
    for name, given in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed or not allowed[name].fullmatch(given):
            raise ValidationError(
                "expected no parameters but, for rediss, ssl_cert_reqs=none, optional or required,"
                " ssl_check_hostname=true or false, ssl_password, and as whole paths ssl_ca_certs,"
                " ssl_ca_path, ssl_certfile, ssl_keyfile"
            )
    return value


def https_url(value: str) -> str:
    """Check that it is a URL whose answers nobody on the way can change, without a password."""
    url("https", "http")(value)
    parts = urlsplit(value)
    if "@" in parts.netloc:
        raise ValidationError("expected an address without a user and a password")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK_HOSTS:
        raise ValidationError("expected https; http is only for loopback")
    return value


RATE = re.compile(r"([1-9]\d{0,8})/(second|minute|hour)")


def rate(value: str) -> str:
    """Check that it is a number of requests in a time, or none."""
    if value != "off" and not RATE.fullmatch(value):
        raise ValidationError("expected a number a second, minute or hour, as in 6000/minute, or off")
    return value


def base_url(value: str) -> str:
    """Check that it is the address of a service, to which paths can be added: no query, no password."""
    url("http", "https")(value)
    parts = urlsplit(value)
    if "?" in value or "#" in value or "@" in parts.netloc:
        raise ValidationError("expected an address alone, without a query, a fragment or a password")
    host(parts.hostname or "")
    return value.rstrip("/")


def origin_url(value: str) -> str:
    """Check that it is the address of a server, whose paths are known: nothing behind host and port."""
    address = base_url(value)
    if urlsplit(address).path:
        raise ValidationError("expected an address alone, without a path")
    return address


def stripe_key(value: str) -> str:
    """Check that it is a secret key of Stripe, a test one or a live one."""
    if not value.startswith((*LIVE_KEYS, "sk_test_", "rk_test_")):
        raise ValidationError("expected a secret key that starts with sk_test_ or sk_live_")
    return value


def signing_secret(value: str) -> str:
    """Check that a shared secret is long enough: for HS256, and for a key of AES-256 to be made of it."""
    # Blanks around it are cut off, so they do not count.
    if len(value.strip().encode()) < SIGNING_SECRET_BYTES:
        raise ValidationError(f"expected at least {SIGNING_SECRET_BYTES} bytes that nobody can guess")
    if value.strip().startswith("-----BEGIN"):
        raise ValidationError("expected a shared secret, not a key in PEM")
    return value


def evidence_url(value: str) -> str:
    """Check that it is a folder's whole path, or a bucket of a kind whose library is installed."""
    scheme, separator, rest = value.partition("://")
    if not separator and value.startswith("/"):
        return value
    if scheme not in {"file", "s3", "memory"} or not rest.strip("/"):
        raise ValidationError(
            "expected a path that starts with / or a URL that starts with file:/// or s3://"
        )
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError:
        raise ValidationError(f"{scheme}:// needs: pip install 'payment-service[{scheme}]'") from None
    return value


def properties(value: Any) -> dict[str, str]:
    """Check that it is an object of strings."""
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValidationError("expected a JSON object whose values are strings")
    return value


def amounts_minor(value: Any) -> dict[str, int]:
    """Check that it is an object of amounts in minor units by currency, none beyond any that is charged."""
    # A limit for "usd" would silently limit nothing.
    if not isinstance(value, dict) or not all(
        code in CURRENCIES and type(each) is int and 0 < each <= DEFAULT_MAXIMUM_MINOR
        for code, each in value.items()
    ):
        raise ValidationError(
            f'expected whole numbers from 1 to {DEFAULT_MAXIMUM_MINOR} by upper-case currency: {{"USD": 100}}'
        )
    return value


def payment_methods(value: list[str]) -> list[str]:
    """Check that each is a payment method that there is."""
    if not set(value) <= set(PAYMENT_METHODS):
        raise ValidationError(f"expected some of {','.join(PAYMENT_METHODS)}, separated by commas alone")
    return value
