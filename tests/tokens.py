"""Sign bearer tokens as an issuer does, and as nobody should."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any, Final

import jwt

SECRET: Final = "a secret of the tests, long enough for every algorithm that signs with one"
PREVIOUS: Final = "the secret that was used before that"
OTHER: Final = "a secret that nobody has told the API"
A_DAY_S: Final = 86_400


def token(
    subject: Any, *, secret: Any = SECRET, algorithm: str | None = "HS256", headers: Any = None, **claims: Any
) -> str:
    """Return a token that is valid for a day; a claim of None is left out."""
    said = {"sub": subject, "exp": int(time.time()) + A_DAY_S, **claims}
    given = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(given, secret, algorithm, headers=headers)


def encoded(part: Any) -> str:
    """Return a part of a token as it is written: JSON, or the bytes that are given."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(claims: Any, header: Any = None) -> str:
    """Return a token whose parts no library has looked at, well signed with HS256."""
    text = f"{encoded({'alg': 'HS256'} if header is None else header)}.{encoded(claims)}"
    return f"{text}.{encoded(hmac.digest(SECRET.encode(), text.encode(), hashlib.sha256))}"


def bearer(subject: Any, **more: Any) -> dict[str, str]:
    """Return the headers of a request with such a token."""
    return {"Authorization": f"Bearer {token(subject, **more)}"}
