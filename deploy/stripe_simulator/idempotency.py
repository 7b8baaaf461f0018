"""Idempotency keys as Stripe keeps them: the first answer of a key is the answer of every repeat.

Source: https://docs.stripe.com/api/idempotent_requests. An answer is kept once execution has begun, 500s
included; what was refused before that (validation, rate limit, a concurrent use) leaves the key free.
"""

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.stripe_simulator.errors import idempotency_in_use, idempotency_mismatch, invalid
from deploy.stripe_simulator.store import Store
from deploy.stripe_simulator.wire import Answer

KEY_LENGTH_MAX = 255
KEPT_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Claim:
    """One request's hold on a key: what it asked for, and the kept answer if this is a repeat."""

    key: str | None
    path: str
    fingerprint: bytes
    kept: Answer | None


class IdempotencyKeys:
    """The keys seen in the last 24 hours and those in use at this moment."""

    def __init__(self, store: Store) -> None:
        """Forget the keys that have expired."""
        self._store = store
        self._in_use: set[str] = set()
        store.execute("DELETE FROM idempotency_keys WHERE created_at < ?", (store.now() - KEPT_S,))

    @contextmanager
    def claim(self, key: str | None, path: str, pairs: list[tuple[str, str]]) -> Iterator[Claim]:
        """Hold `key` for a POST to `path` with the parameters `pairs`.

        Raises StripeError when the key is too long, in use, or was first used for something else.
        """
        fingerprint = _fingerprint(pairs)
        if key is None:
            yield Claim(None, path, fingerprint, None)
            return
        if len(key) > KEY_LENGTH_MAX:
            message = (
                f"Idempotency keys must be at most {KEY_LENGTH_MAX} characters long (yours has {len(key)})."
            )
            raise invalid(message)
        if key in self._in_use:
            raise idempotency_in_use(key)
        kept = self._look_up(key, path, fingerprint)
        if kept is not None:  # any number of repeats may be answered at once
            yield Claim(key, path, fingerprint, kept)
            return
        self._in_use.add(key)
        try:
            yield Claim(key, path, fingerprint, None)
        finally:
            self._in_use.discard(key)

    def _look_up(self, key: str, path: str, fingerprint: bytes) -> Answer | None:
        sql = (
            "SELECT path, fingerprint, request_id, status, body FROM idempotency_keys "
            "WHERE key = ? AND created_at >= ?"
        )
        row = self._store.execute(sql, (key, self._store.now() - KEPT_S)).fetchone()
        if row is None:
            return None
        first_path, first_fingerprint, request_id, status, body = row
        if first_path != path:
            raise idempotency_mismatch(
                "Keys for idempotent requests can only be used for the same endpoint they were first used "
                f"for ('{path}' vs '{first_path}'). Try using a key other than '{key}' if you meant to "
                "execute a different request."
            )
        if first_fingerprint != fingerprint:
            raise idempotency_mismatch(
                "Keys for idempotent requests can only be used with the same parameters they were first used "
                f"with. Try using a key other than '{key}' if you meant to execute a different request."
            )
        headers = {"Idempotent-Replayed": "true", "Original-Request": request_id}
        return Answer(status, zlib.decompress(body), headers)

    def keep(self, claim: Claim, answer: Answer, request_id: str) -> None:
        """Keep `answer` as the key's first; call it inside the transaction of what the request did."""
        if claim.key is None:
            return
        body = zlib.compress(answer.body, 1)
        row = (claim.key, claim.path, claim.fingerprint, self._store.now(), request_id, answer.status, body)
        # Replaces only a key that has expired: a live one was replayed or refused by claim().
        sql = (
            "INSERT OR REPLACE INTO idempotency_keys "
            "(key, path, fingerprint, created_at, request_id, status, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        self._store.execute(sql, row)


def _fingerprint(pairs: list[tuple[str, str]]) -> bytes:
    return hashlib.blake2b(repr(sorted(pairs)).encode(), digest_size=16).digest()
