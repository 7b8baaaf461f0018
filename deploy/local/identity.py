"""Who may ask this stack's API: anyone on this machine, unless AUTH=required; tokens can always be tried."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from deploy.local.outside import BadSetting, given
from deploy.local.state import StateFolder, write_private

SECRET_BYTES = 32


@dataclass(frozen=True)
class Identity:
    """Whether tokens are needed, and where the secret is that signs them (None: JWT_SECRET, as given)."""

    required: bool
    secret_file: Path | None

    @property
    def settings(self) -> dict[str, str]:
        """What our processes are told of it."""
        told = {"AUTH": "required" if self.required else "optional"}
        return told | ({"JWT_SECRET_FILE": str(self.secret_file)} if self.secret_file else {})


def choose_identity(state: StateFolder) -> Identity:
    """Read AUTH, and make a secret of the stack's own unless one is given. Raises BadSetting."""
    auth = os.environ.get("AUTH") or "optional"
    if auth not in {"optional", "required"}:
        message = f"AUTH is {auth!r}, expected optional or required"
        raise BadSetting(message)
    return Identity(auth == "required", None if given("JWT_SECRET") else kept_secret(state.jwt_secret_file))


def kept_secret(file: Path) -> Path:
    """A secret of the stack's own, made once: tokens stay good, and stored values can be opened."""
    if not file.exists():
        write_private(file, f"{secrets.token_urlsafe(SECRET_BYTES)}\n")
    return file
