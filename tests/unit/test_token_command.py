"""`payment-api token`: a token to try the API with, as the API reads it again, and never for real money."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result

from payment_api.cli import LONGEST_TTL_S, main
from payment_api.principal import Role
from payment_api.services import make_tokens
from shared.settings import Settings, load_settings
from tests.tokens import SECRET


@pytest.fixture(autouse=True)
def _only_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from an environment with nothing but a secret."""
    for each in fields(Settings):
        monkeypatch.delenv(each.name.upper(), raising=False)
    monkeypatch.setenv("JWT_SECRET", SECRET)


def mint(*words: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["token", *words])


def test_a_token_says_what_was_asked_for() -> None:
    """Nothing but the token is printed; the API reads from it who asks, until when, and for what."""
    made = mint("--sub", "ada", "--role", "service", "--ttl", "60", "--scope", "payments:read refunds:write")
    assert (made.exit_code, made.stderr) == (0, "")
    caller = make_tokens(load_settings(())).read(f"Bearer {made.stdout.strip()}")
    assert (caller.id, caller.role) == ("ada", Role.SERVICE)
    assert caller.scopes == {"payments:read", "refunds:write"}
    assert caller.expires_at is not None
    assert timedelta(0) < caller.expires_at - datetime.now(UTC) <= timedelta(seconds=60)


def test_a_token_is_a_customers_for_an_hour_unless_told_otherwise() -> None:
    """Each has an id of its own, so that one can be revoked without the others."""
    read = make_tokens(load_settings(())).read
    callers = [read(f"Bearer {mint('--sub', 'ada').stdout.strip()}") for _ in range(2)]
    assert [(each.role, each.scopes) for each in callers] == [(Role.CUSTOMER, frozenset())] * 2
    assert callers[0].token_id != callers[1].token_id


def test_a_token_is_for_the_issuer_and_audience_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the API with the same settings takes it."""
    monkeypatch.setenv("JWT_ISSUER", "https://issuer.example/")
    monkeypatch.setenv("JWT_AUDIENCE", "payments")
    made = mint("--sub", "ada").stdout.strip()
    assert make_tokens(load_settings(())).read(f"Bearer {made}").id == "ada"


@pytest.mark.parametrize("key", ["sk_live_hunter2", "rk_live_hunter2"])
def test_a_live_key_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Whoever may move real money gets tokens from the issuer, not from a command line."""
    monkeypatch.setenv("STRIPE_SECRET_KEY", key)
    refused = mint("--sub", "ada")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "STRIPE_SECRET_KEY: a live key" in refused.stderr
    assert "hunter2" not in refused.stderr


def test_without_a_secret_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named."""
    monkeypatch.delenv("JWT_SECRET")
    refused = mint("--sub", "ada")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "JWT_SECRET: is not set" in refused.stderr


@pytest.mark.parametrize(
    "words",
    [
        (), ("--sub", ""), ("--sub", "two words"), ("--sub", "x" * 256), ("--sub", "x", "--role", "admin"),
        ("--sub", "x", "--ttl", "0"), ("--sub", "x", "--ttl", str(LONGEST_TTL_S + 1)),
        ("--sub", "x", "--ttl", "soon"), ("--sub", "x", "--scope", "x" * 9000),
    ],
    ids=lambda words: " ".join(words)[:40],
)  # fmt: skip
def test_what_the_api_would_not_take_is_not_made(words: tuple[str, ...]) -> None:
    """A bad option is refused by name, and so is what would make a token that nobody takes."""
    refused = mint(*words)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr
