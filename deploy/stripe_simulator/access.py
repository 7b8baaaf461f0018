"""Who may call, and with which API version: the checks Stripe makes before it reads a request."""

import base64
import binascii
from collections.abc import Mapping

from deploy.stripe_simulator.errors import StripeError, invalid, unauthorized

API_VERSION = "2026-10-28.endive"  # what the locked stripe SDK sends; a test compares the two

FORM = "application/x-www-form-urlencoded"


def check_access(headers: Mapping[str, str]) -> None:
    """Raise StripeError unless the request has a secret test key and asks for the simulated API version."""
    _check_key(_key(headers.get("Authorization", "")))
    version = headers.get("Stripe-Version", API_VERSION)
    if version != API_VERSION:
        message = f"Invalid Stripe API version: {version}. This simulator speaks {API_VERSION} only."
        raise invalid(message)
    if account := headers.get("Stripe-Account"):
        message = (
            f"The provided key does not have access to account '{account}' (or that account does not exist). "
            "Application access may have been revoked."
        )
        raise invalid(message, code="account_invalid", status=403)


def check_form(content_type: str, length: int) -> None:
    """Raise StripeError for a body that is not form-encoded."""
    if length and content_type != FORM:
        message = (
            f"Invalid request (check that your POST content type is {FORM}). If you have any questions, we "
            "can help at https://support.stripe.com/."
        )
        raise invalid(message)


def _key(authorization: str) -> str:
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() == "basic":  # curl -u sk_test_...:
        try:
            return base64.b64decode(credentials, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _check_key(key: str) -> None:
    if not key:
        message = (
            "You did not provide an API key. You need to provide your API key in the Authorization header, "
            "using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
        )
        raise unauthorized(message)
    if key.startswith("pk_"):
        message = "This API call cannot be made with a publishable API key. Please use a secret API key."
        raise unauthorized(message, code="secret_key_required")
    if not key.startswith("sk_test_") or key == "sk_test_":
        raise _refused(key)


def _refused(key: str) -> StripeError:
    shown = f"{key[:8]}{'*' * 8}{key[-4:]}" if len(key) > 12 else "*" * len(key)  # noqa: PLR2004 - as Stripe masks
    live = " Live keys are never accepted here." if key.startswith(("sk_live_", "rk_live_")) else ""
    return unauthorized(f"Invalid API Key provided: {shown}.{live}")
