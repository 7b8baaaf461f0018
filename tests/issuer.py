"""An outside issuer of tokens: keys of its own, and a web server that publishes them."""

import base64
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.tokens import token
from tests.waiting import POLL_S

P256_BYTES: Final = 32  # of each coordinate, leading zeros as well (RFC 7518, 6.2.1.2)


def _number(value: int, at_least_bytes: int = 1) -> str:
    raw = value.to_bytes(max(at_least_bytes, (value.bit_length() + 7) // 8), "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True)
class IssuerKey:
    """A private key of an issuer, and its id."""

    key_id: str
    key: RSAPrivateKey | EllipticCurvePrivateKey

    @property
    def algorithm(self) -> str:
        """What it signs with."""
        return "RS256" if isinstance(self.key, RSAPrivateKey) else "ES256"

    @property
    def pem(self) -> bytes:
        """The public key as everybody may have it."""
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def published(self, **more: Any) -> dict[str, Any]:
        """Return the public key as a JWK set has it."""
        public = self.key.public_key().public_numbers()
        if isinstance(public, rsa.RSAPublicNumbers):
            facts = {"kty": "RSA", "n": _number(public.n), "e": _number(public.e)}
        else:
            at = {name: _number(value, P256_BYTES) for name, value in (("x", public.x), ("y", public.y))}
            facts = {"kty": "EC", "crv": "P-256", **at}
        return {**facts, "kid": self.key_id, "use": "sig", "alg": self.algorithm, **more}

    def token(self, subject: Any, **claims: Any) -> str:
        """Return a token that this key has signed."""
        headers = claims.pop("headers", {"kid": self.key_id})
        return token(subject, secret=self.key, algorithm=self.algorithm, headers=headers, **claims)

    def bearer(self, subject: Any, **claims: Any) -> dict[str, str]:
        """Return the headers of a request with such a token."""
        return {"Authorization": f"Bearer {self.token(subject, **claims)}"}


def rsa_key(key_id: str, bits: int = 2048) -> IssuerKey:
    """Make an RSA key."""
    return IssuerKey(key_id, rsa.generate_private_key(public_exponent=65537, key_size=bits))


def ec_key(key_id: str) -> IssuerKey:
    """Make a key on the curve P-256."""
    return IssuerKey(key_id, ec.generate_private_key(ec.SECP256R1()))


class KeyServer:
    """Publishes keys at an address; counts who asks, and can be down, or slow while `answers` is not set."""

    def __init__(self) -> None:
        """Listen on a free port of this machine."""
        self.asked = 0
        self.status = 200
        self.body = b'{"keys": []}'
        self.answers = threading.Event()
        self.answers.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked += 1
                server.answers.wait()
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(server.body)))
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(server.body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by its base
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/keys"

    def publish(self, *keys: IssuerKey | dict[str, Any]) -> None:
        """Publish these keys, and no others."""
        shown: Iterable[Any] = (each.published() if isinstance(each, IssuerKey) else each for each in keys)
        self.body = json.dumps({"keys": list(shown)}).encode()

    def close(self) -> None:
        """Stop listening."""
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def key_server() -> Iterator[KeyServer]:
    """Have an issuer's server for the block."""
    server = KeyServer()
    try:
        yield server
    finally:
        server.close()
