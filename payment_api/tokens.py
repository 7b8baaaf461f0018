"""Read bearer tokens: who a JSON Web Token speaks for, once its signature and its times are right."""

import hashlib
import re
import uuid
from datetime import UTC, datetime
from typing import Any

import jwt

from payment_api.principal import Principal, Role

ALGORITHM = "HS256"  # never taken from the token: its header is the sender's word
LEEWAY_S = 10  # clocks of issuers differ a little
LONGEST = 4096  # characters; more than any of ours needs, and below the server's limit for one header
LONGEST_SUBJECT = 255
_LAST_S = 253_402_300_799  # the last second that a datetime knows
_SUBJECT = re.compile(rf"[\x21-\x7e]{{1,{LONGEST_SUBJECT}}}")
_BEARER = re.compile(rf"bearer +([A-Za-z0-9_.-]{{1,{LONGEST}}}) *", re.IGNORECASE)


class BadToken(Exception):
    """A token that is not taken; the message is for our log and holds nothing of the token."""


class Tokens:
    """The tokens of an issuer that shares a secret with us."""

    def __init__(self, *secrets: str) -> None:
        """Any of the secrets may have signed; an empty one signs nothing."""
        self._secrets = [each for each in secrets if each]

    def read(self, authorization: str) -> Principal:
        """Who an Authorization header speaks for. Raises BadToken."""
        match = _BEARER.fullmatch(authorization)
        if match is None:
            raise BadToken("no bearer token")
        return _principal(self._claims(match[1]), match[1])

    def _claims(self, token: str) -> dict[str, Any]:
        reason = "no secret"
        for secret in self._secrets:
            try:
                return jwt.decode(
                    token, secret, [ALGORITHM], options={"require": ["exp", "sub"]}, leeway=LEEWAY_S
                )
            except jwt.InvalidSignatureError as error:
                reason = type(error).__name__
            except jwt.PyJWTError as error:
                raise BadToken(type(error).__name__) from None
        raise BadToken(reason)


def _principal(claims: dict[str, Any], token: str) -> Principal:
    subject, scope = claims["sub"], claims.get("scope", "")
    if not _SUBJECT.fullmatch(subject):
        raise BadToken("unusable sub")
    if not isinstance(scope, str):
        raise BadToken("unusable scope")
    try:
        role = Role(claims.get("role", Role.CUSTOMER))
    except ValueError:
        raise BadToken("unknown role") from None
    return Principal(
        _canonical(subject),
        role,
        frozenset(scope.split()),
        token_id=_token_id(claims, token),
        expires_at=datetime.fromtimestamp(min(int(claims["exp"]), _LAST_S), UTC),
    )


def _token_id(claims: dict[str, Any], token: str) -> str:
    """The same for a token however it is written, and another for every other token.

    An issuer's `jti` where there is one. Else what was signed, without the signature: that can be written in
    several ways which all are right.
    """
    jti = claims.get("jti")
    named = f"jti {claims.get('iss', '')}\x1f{jti}" if jti else f"signed {token.rpartition('.')[0]}"
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(subject: str) -> str:
    """A UUID as payments keep a customer's, whatever case the issuer writes it in; else as it is."""
    try:
        canonical = str(uuid.UUID(subject))
    except ValueError:
        return subject
    return canonical if canonical == subject.lower() else subject
