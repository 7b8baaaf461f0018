"""The public keys of an outside issuer: fetched from its JWKS address, kept, and fetched when they change."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt
import urllib3

from payment_api.metrics import KEY_FETCHES
from shared.documents import parse_json
from shared.telemetry import get_logger

log = get_logger(__name__)

FRESH_S = 300.0  # after that the keys are fetched anew, so that one that was withdrawn is forgotten
FLOOR_S = 10.0  # between two fetches, whatever key ids are sent to us
KEPT_S = 24 * 3600.0  # how long keys are believed while the issuer cannot be asked
TIMEOUT_S = 3.0
MAX_DOCUMENT_BYTES = 256 * 1024
MAX_WAITING = 16  # requests that may wait for another's fetch; unknown key ids must not hold up all threads
REFRESH = "issuer's keys"  # the thread's name
SHORTEST_RSA_BITS = 2048  # RFC 7518, section 3.3


class KeysUnavailable(Exception):
    """The issuer's keys have not been had yet, or not for a day; nothing is known of the token."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key, and the one algorithm that it is used with, whatever a token says."""

    key: Any
    algorithm: str


class Jwks:
    """The keys of one issuer by their ids, for all threads of a process."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is fetched until the first key is asked for; `clock` is in seconds."""
        self._url = url
        self._clock = clock
        self._pool = urllib3.PoolManager(retries=False, timeout=TIMEOUT_S)
        self._keys: dict[str, PublicKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)

    def find(self, key_id: str) -> PublicKey | None:
        """The key of this id, None for an unknown one. Raises KeysUnavailable.

        An unknown id has the keys fetched anew, but not more often than FLOOR_S allows. An issuer that does
        not answer is served from what is known.
        """
        age_s = self._age_s()
        if age_s > KEPT_S or key_id not in self._keys:
            self._refresh()
        elif age_s > FRESH_S and self._may_ask() and not self._fetching.locked():
            self.refresh_soon()
        if self._age_s() > KEPT_S:
            raise KeysUnavailable("the issuer's keys cannot be had")
        return self._keys.get(key_id)

    def refresh_soon(self) -> None:
        """Fetch the keys in the background, so that no request has to wait for them."""
        threading.Thread(target=self._refresh, name=REFRESH, daemon=True).start()

    def _age_s(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    def _may_ask(self) -> bool:
        return self._tried_at is None or self._clock() - self._tried_at >= FLOOR_S

    def _refresh(self) -> None:
        """Fetch the keys unless that was tried a moment ago; one thread does, some others wait for it."""
        if self._fetching.acquire(blocking=False):
            try:
                if self._may_ask():
                    self._fetch()
            finally:
                self._fetching.release()
        elif self._waiting.acquire(blocking=False):
            try:
                with self._fetching:
                    return
            finally:
                self._waiting.release()

    def _fetch(self) -> None:
        try:
            self._keys = read_keys(self._document())
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            KEY_FETCHES.labels("failed").inc()
            log.warning("the issuer's keys were not had", error=type(error).__name__, known=len(self._keys))
        else:
            KEY_FETCHES.labels("had").inc()
            self._fetched_at = self._clock()
        finally:
            # Afterwards, lest a slow answer use the time up.
            self._tried_at = self._clock()

    def _document(self) -> Any:
        answer = self._pool.request("GET", self._url, redirect=False, preload_content=False)
        try:
            raw = answer.read(MAX_DOCUMENT_BYTES + 1, decode_content=True)
        finally:
            answer.release_conn()
        if answer.status != 200 or len(raw) > MAX_DOCUMENT_BYTES:  # noqa: PLR2004 - HTTP's own number
            raise ValueError("no key set")
        return parse_json(raw)


def read_keys(document: Any) -> dict[str, PublicKey]:
    """The usable keys of a JWK set by id; others are left out. Raises ValueError where there are none."""
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError("no key set")  # noqa: TRY004 - whatever is wrong with the document
    found = {each["kid"]: key for each in keys if isinstance(each, dict) and (key := _usable(each))}
    if not found:
        raise ValueError("no usable key")
    return found


def _usable(document: dict[str, Any]) -> PublicKey | None:
    """A public key for signatures in RS256 or ES256, with an id; None for any other."""
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(document.get("kty")))
    unfit = (
        algorithm is None
        or not isinstance(document.get("kid"), str)
        or document.get("use", "sig") != "sig"
        or document.get("alg", algorithm) != algorithm
        or (algorithm == "ES256" and document.get("crv") != "P-256")
        or "d" in document  # a private key that was published is nobody's
    )
    if unfit or algorithm is None:
        return None
    try:
        key = jwt.PyJWK(document, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    too_short = algorithm == "RS256" and key.key_size < SHORTEST_RSA_BITS
    return None if too_short else PublicKey(key, algorithm)
