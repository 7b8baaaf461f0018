"""Seal what is sensitive before it is stored, and open it again: AES-256-GCM under a key from the settings.

A sealed value says which key it is under, so that a key can be replaced while values of the one before are
still there: new ones are sealed under the current key, and both kinds are opened.
"""

import hashlib
import hmac
import os
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.settings import Settings

VERSION = b"\x01"
KEY_BYTES = 32
KEY_ID_BYTES = 8
NONCE_BYTES = 12  # NIST SP 800-38D: random ones are good for 2^32 values under one key
HEAD_BYTES = len(VERSION) + KEY_ID_BYTES + NONCE_BYTES


class CannotOpen(Exception):
    """No key at hand opens a sealed value, or it was changed; the message holds nothing of it."""


class NoKey(Exception):
    """Something is to be sealed, and no key is set."""


class _Key(NamedTuple):
    """All that is made of one secret."""

    id: bytes
    cipher: AESGCM
    fingerprints: bytes

    @classmethod
    def of(cls, secret: str) -> "_Key":
        def derive(purpose: bytes, length: int) -> bytes:
            return HKDF(SHA256(), length, salt=None, info=b"payment-service " + purpose).derive(
                secret.encode()
            )

        cipher = AESGCM(derive(b"sealing", KEY_BYTES))
        return cls(derive(b"key id", KEY_ID_BYTES), cipher, derive(b"fingerprints", KEY_BYTES))


class Sealer:
    """Seals under the current key and opens what is under any that it knows; safe to share by threads.

    `about` names what a value belongs to, for instance `saved_card.token`: a value that is opened as another
    than what it was sealed as is refused, so that nobody can pass one off as another.
    """

    def __init__(self, current: str, previous: str = "") -> None:
        """Use the current secret, and the one before; without any, nothing is sealed."""
        self._keys = [_Key.of(each) for each in (current, previous) if each]
        self._has_current = bool(current)

    @classmethod
    def of(cls, settings: Settings) -> "Sealer":
        """The sealer of a process with these settings."""
        return cls(settings.data_key, settings.data_key_previous)

    @property
    def has_keys(self) -> bool:
        """Whether anything can be opened at all."""
        return bool(self._keys)

    def seal(self, text: str, about: str = "") -> bytes:
        """Seal a text under the current key; twice the same text gives two values. Raises NoKey."""
        key = self._current()
        nonce = os.urandom(NONCE_BYTES)
        head = VERSION + key.id + nonce
        return head + key.cipher.encrypt(nonce, text.encode(), _bound(head, about))

    def open(self, sealed: bytes, about: str = "") -> str:
        """The text that was sealed about the same. Raises CannotOpen."""
        sealed = bytes(sealed)
        head, body = sealed[:HEAD_BYTES], sealed[HEAD_BYTES:]
        for key in self._keys:
            if head.startswith(VERSION + key.id):
                try:
                    return key.cipher.decrypt(head[-NONCE_BYTES:], body, _bound(head, about)).decode()
                except InvalidTag:
                    raise CannotOpen(
                        f"a sealed value was changed, or is not {about or 'of this kind'}"
                    ) from None
        raise CannotOpen("a sealed value is under a key that is neither DATA_KEY nor DATA_KEY_PREVIOUS")

    def is_current(self, sealed: bytes) -> bool:
        """Whether a value is under the current key, so that the one before is not needed for it."""
        return bytes(sealed).startswith(self.current_head)

    @property
    def current_head(self) -> bytes:
        """How every value under the current key begins. Raises NoKey."""
        return VERSION + self._current().id

    def fingerprint(self, text: str, about: str) -> bytes:
        """What to find a sealed text by: the same for the same text, and of no use without the key.

        Raises NoKey.
        """
        return _fingerprint(self._current(), text, about)

    def fingerprints(self, text: str, about: str) -> list[bytes]:
        """Every fingerprint under which a text may be stored, the current key's first. Raises NoKey."""
        self._current()
        return [_fingerprint(key, text, about) for key in self._keys]

    def _current(self) -> _Key:
        if not self._has_current:
            raise NoKey("DATA_KEY is not set: what is sensitive cannot be stored")
        return self._keys[0]


def _bound(head: bytes, about: str) -> bytes:
    """What is protected from changes beside the text itself."""
    return head + about.encode()


def _fingerprint(key: _Key, text: str, about: str) -> bytes:
    return hmac.digest(key.fingerprints, f"{about}\x1f{text}".encode(), hashlib.sha256)
