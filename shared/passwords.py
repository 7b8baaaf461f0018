"""Keep passwords as Argon2id hashes, and check them in a time that tells nothing."""

import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from shared.accounts import TooBusy

SHORTEST: Final = 8  # characters; NIST SP 800-63B, section 5.1.1.2
LONGEST: Final = 256  # more than anybody types; what is hashed stays short
# OWASP Password Storage Cheat Sheet: 19 MiB, two passes, one lane. Where they are raised, each stored hash
# follows with the next login.
TIME_COST: Final = 2
MEMORY_KIB: Final = 19_456
# Each takes its memory and a core: what comes at once waits in line, and past this wait is told to come back.
AT_ONCE: Final = 4
PATIENCE_S: Final = 5.0


class Passwords:
    """Hashes and checks passwords, a few at a time; one per process."""

    def __init__(
        self, *, time_cost: int = TIME_COST, memory_kib: int = MEMORY_KIB, patience_s: float = PATIENCE_S
    ) -> None:
        """Make the hash that a password is held against where there is none of its own."""
        self._hasher = PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=1)
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._patience_s = patience_s
        self._nobodys = self._hasher.hash("nobody's password")

    def hash(self, password: str) -> str:
        """What to store of a password. Raises TooBusy."""
        with self._turn():
            return self._hasher.hash(_normal(password))

    def matches(self, stored: str | None, password: str) -> bool:
        """Whether a password is the one that was stored; as slow for None, nobody's. Raises TooBusy."""
        with self._turn():
            try:
                self._hasher.verify(stored or self._nobodys, _normal(password))
            except (VerificationError, InvalidHashError):
                return False
        return stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be one of the few that hash at a time. Raises TooBusy."""
        if not self._turns.acquire(timeout=self._patience_s):
            raise TooBusy("The service is busy; try again")
        try:
            yield
        finally:
            self._turns.release()


def _normal(password: str) -> str:
    """The same characters in one form, whatever they were typed on: NIST SP 800-63B, section 5.1.1.2."""
    return unicodedata.normalize("NFKC", password)
