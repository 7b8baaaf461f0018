"""Read bearer tokens: who a JSON Web Token speaks for, once everything about it is right."""

import hashlib
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import jwt

from payment_api.jwks import Jwks
from payment_api.principal import Principal, Role
from payment_api.scopes import named_scopes

# Each source of keys has its algorithms; the token's header, which names one, is only its sender's word.
SHARED_ALGORITHM = "HS256"
LEEWAY_S = 10  # clocks of issuers differ a little
LONGEST = 7168  # characters; below the server's limit for one header
LONGEST_SUBJECT = 255
_LAST_S = 253_402_300_799  # the last second that a datetime knows
_SUBJECT = re.compile(rf"[\x21-\x7e]{{1,{LONGEST_SUBJECT}}}")
_BEARER = re.compile(rf"bearer +([A-Za-z0-9_.-]{{1,{LONGEST}}}) *", re.IGNORECASE)


class BadToken(Exception):
    """A token that is not taken; the message is for our log and holds nothing of the token."""


class Tokens:
    """The tokens of those who share a secret with us, and of an outside issuer that publishes its keys."""

    def __init__(
        self, secrets: Sequence[str], jwks: Jwks | None = None, *, issuer: str = "", audience: str = ""
    ) -> None:
        """Any of the secrets may have signed; an empty one signs nothing.

        Where `issuer` or `audience` is given, every token has to name it.
        """
        self._secrets = [each for each in secrets if each]
        self._jwks = jwks
        named = {"iss": issuer, "aud": audience}
        self._expected: dict[str, Any] = {
            "leeway": LEEWAY_S,
            "issuer": issuer or None,
            "audience": audience or None,
            "options": {"require": ["exp", "sub", *(claim for claim, given in named.items() if given)]},
        }

    def prepare(self) -> None:
        """Begin to fetch an outside issuer's keys, before the first token comes."""
        if self._jwks:
            self._jwks.refresh_soon()

    def read(self, authorization: str) -> Principal:
        """Who an Authorization header speaks for. Raises BadToken, and KeysUnavailable."""
        match = _BEARER.fullmatch(authorization)
        if match is None:
            raise BadToken("no bearer token")
        try:
            claims = self._claims(match[1])
        except jwt.PyJWTError as error:
            raise BadToken(type(error).__name__) from None
        return _principal(claims, match[1])

    def _claims(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        if self._jwks and header.get("alg") != SHARED_ALGORITHM:
            key = self._jwks.find(header["kid"]) if isinstance(header.get("kid"), str) else None
            if key is None:
                raise BadToken("unknown key")
            return jwt.decode(token, key.key, [key.algorithm], **self._expected)
        return self._claims_of_shared_secret(token)

    def _claims_of_shared_secret(self, token: str) -> dict[str, Any]:
        reason = "no secret"
        for secret in self._secrets:
            try:
                return jwt.decode(token, secret, [SHARED_ALGORITHM], **self._expected)
            except jwt.InvalidSignatureError as error:
                reason = type(error).__name__
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
        named_scopes(scope),
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
