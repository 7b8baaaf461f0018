"""What a setting has to be: a check returns the value, or raises ValidationError saying what is expected."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import fsspec
from marshmallow import ValidationError

from shared.money import CURRENCIES

Check = Callable[[Any], Any]

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
LIVE_KEYS = ("sk_live_", "rk_live_")
SIGNING_SECRET_BYTES = 32  # as many as HS256's hash has: RFC 7518, section 3.2


def url(*schemes: str) -> Check:
    """Return a check for a URL of one of these schemes, with a port that can be one."""

    def check(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or not parts.netloc:
            raise ValidationError(
                f"expected a URL that starts with {' or '.join(f'{s}://' for s in schemes)}"
            )
        try:
            _ = parts.port
        except ValueError:
            raise ValidationError("expected a port between 0 and 65535") from None
        return value

    return check


def https_url(value: str) -> str:
    """Check that it is a URL whose answers nobody on the way can change."""
    url("https", "http")(value)
    parts = urlsplit(value)
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
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValidationError("expected an address alone, without a query, a fragment or a password")
    return value.rstrip("/")


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
    """Check that it is an object of positive amounts in minor units by currency."""
    # A limit for "usd" would silently limit nothing.
    if not isinstance(value, dict) or not all(
        code in CURRENCIES and type(each) is int and each > 0 for code, each in value.items()
    ):
        raise ValidationError('expected positive whole numbers by upper-case currency: {"USD": 100}')
    return value


def names(value: list[str]) -> list[str]:
    """Check that each is a name of lower-case letters."""
    if not all(re.fullmatch("[a-z_]+", each) for each in value):
        raise ValidationError("expected names of lower-case letters, separated by commas alone")
    return value
