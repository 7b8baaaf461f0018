"""Make identifiers that look like Stripe's: a prefix and random letters and digits."""

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits
# A byte is taken modulo 62: the slight bias is harmless, and it costs a fifth of secrets.choice per letter.
_LETTERS = "".join(_ALPHABET[value % len(_ALPHABET)] for value in range(256))


def new_id(prefix: str, length: int = 24) -> str:
    """Return `prefix` and `length` random characters, e.g. `new_id("pi_")`."""
    return prefix + "".join([_LETTERS[value] for value in secrets.token_bytes(length)])
