"""Tokens on the embedded stack: not needed unless asked for, and always there to be tried."""

import stat
from pathlib import Path

import requests

from deploy.local.client import RunningStack, running_stack
from tests.tokens import bearer
from tests.waiting import LONGEST_S, wait_until

CALL_S = 120


def says(stack: RunningStack, what: str) -> None:
    """Wait until the stack has said so: it is ready a moment before it has said everything."""
    wait_until(lambda: what in stack.log("supervisor"), LONGEST_S, what)


def secret_of(stack: RunningStack) -> str:
    """Return the secret that the stack keeps for tokens, which is its owner's alone and which it names."""
    file = stack.state_dir / "jwt.secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    says(stack, str(file))
    secret = file.read_text(encoding="utf-8").strip()
    assert secret not in stack.log("supervisor") + stack.log("api")
    return secret


def data_key_of(stack: RunningStack) -> str:
    """Return the key that the stack seals stored values with, which is its owner's alone and in no log."""
    file = stack.state_dir / "data.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = file.read_text(encoding="utf-8").strip()
    assert key not in stack.log("supervisor") + stack.log("api")
    return key


def asked(stack: RunningStack, headers: dict[str, str]) -> int:
    """Return the status of a request for the list of payments."""
    return requests.get(f"{stack.endpoints.api_url}/payments", headers=headers, timeout=CALL_S).status_code


def test_tokens_are_optional_by_default_and_can_be_asked_for(tmp_path: Path) -> None:
    """Without AUTH nobody needs one, and the stack says so; with AUTH=required everybody does.

    A token that is signed with the kept secret is good in both, also after the stack was stopped; so it is
    with what was sealed under the kept key.
    """
    with running_stack(tmp_path) as stack:
        says(stack, "AUTH=optional")
        token = bearer("somebody", secret=secret_of(stack))
        forged = bearer("somebody")
        assert [asked(stack, each) for each in ({}, token, forged)] == [200, 200, 401]
        key = data_key_of(stack)
    with running_stack(tmp_path, env={"AUTH": "required"}) as stack:
        says(stack, "AUTH=required")
        assert secret_of(stack)
        assert [asked(stack, each) for each in ({}, token, forged)] == [401, 200, 401]
        assert data_key_of(stack) == key
