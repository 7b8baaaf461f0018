"""Make bearer tokens with our own secret, as they are read again."""

import time

import jwt

from payment_api.principal import Role
from payment_api.tokens import SHARED_ALGORITHM
from shared.database import new_id
from shared.settings import Settings


def mint(settings: Settings, subject: str, role: Role, *, ttl_s: int, scope: str = "") -> str:
    """A token for this subject that is good for `ttl_s` seconds, for our own issuer and audience.

    `scope` narrows the role's rights; empty: it does not. JWT_SECRET must be set.
    """
    now = int(time.time())
    claims = {
        "sub": subject,
        "role": str(role),
        "iat": now,
        "exp": now + ttl_s,
        "jti": str(new_id()),
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "scope": scope,
    }
    return jwt.encode(
        {name: said for name, said in claims.items() if said}, settings.jwt_secret, SHARED_ALGORITHM
    )
