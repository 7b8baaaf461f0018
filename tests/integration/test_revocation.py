"""A token that was taken back is refused at once, wherever it is sent, until it would have expired anyway."""

from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from payment_api.cli import main
from payment_worker import retention
from shared.commands.revocation import is_revoked, revoke
from tests.api import Api
from tests.integration.conftest import NewApi
from tests.integration.test_api_auth import assert_unauthenticated
from tests.tokens import OTHER, PREVIOUS, SECRET, bearer, token

SOON = datetime.now(UTC) + timedelta(hours=1)
# The last character of a signature of 32 bytes holds two bits that nobody reads.
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def revoke_of(api: Api, headers: dict[str, str]) -> None:
    """Take back the token of these headers."""
    caller = api.services.tokens.read(headers["Authorization"])
    assert caller.token_id is not None
    assert caller.expires_at is not None
    revoke(api.services.sessions, caller.token_id, caller.expires_at)


@pytest.mark.parametrize(
    "claims", [{}, {"jti": "one"}, {"jti": "one", "iss": "us"}, {"exp": 10**15}], ids=str
)
def test_a_revoked_token_is_refused(closed: Api, new_api: NewApi, claims: dict[str, str]) -> None:
    """In every process from the next request on, once or twice; the subject's other tokens are good."""
    other_process = new_api(AUTH="required", JWT_SECRET=SECRET, JWT_SECRET_PREVIOUS=PREVIOUS)
    headers = bearer("x", **claims)
    assert [each.get("/payments", **headers).status for each in (closed, other_process)] == [200, 200]
    for _ in range(2):
        revoke_of(closed, headers)
    for api in (closed, other_process):
        assert_unauthenticated(api.get("/payments", **headers))
        for others in ({}, {"jti": "two"}, {"jti": "one", "iss": "them"}):
            assert api.get("/payments", **bearer("x", more=1, **others)).status == 200
    assert closed.stored.counts() == {"revoked_token": 1}


def test_a_token_written_otherwise_is_the_same_token(closed: Api) -> None:
    """A signature can be written in several ways; none of them brings a revoked token back."""
    headers = bearer("x")
    text = headers["Authorization"]
    at = ALPHABET.index(text[-1]) & ~3
    spellings = [{"Authorization": text[:-1] + ALPHABET[at + n]} for n in range(4)]
    taken = [each for each in spellings if closed.get("/payments", **each).status == 200]
    assert headers in taken
    revoke_of(closed, headers)
    for each in taken:
        assert_unauthenticated(closed.get("/payments", **each))


def test_an_operator_revokes_a_token(closed: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read from standard input and leaves a trail without it; a bad one is said to be one."""
    monkeypatch.setenv("DATABASE_URL", closed.stored.database_url)
    monkeypatch.setenv("JWT_SECRET", SECRET)
    headers = bearer("somebody", role="service")
    text = headers["Authorization"].partition(" ")[2]
    done = CliRunner().invoke(main, ["revoke"], input=f"{text}\n")
    assert (done.exit_code, "a token of somebody" in done.output, text in done.output) == (0, True, False)
    assert_unauthenticated(closed.get("/payments", **headers))
    (noted,) = closed.stored.rows("audit_entry")
    assert (noted["action"], noted["outcome"]) == ("payment-api revoke", "done")
    assert noted["subject"] == {"sub": "somebody"}
    for bad in ("", "x", token("x", secret=OTHER)):
        refused = CliRunner().invoke(main, ["revoke"], input=bad)
        assert (refused.exit_code, "would not take this token anyway" in refused.stderr) == (2, True)
    assert closed.stored.counts() == {"revoked_token": 1, "audit_entry": 1}


def test_what_is_remembered_of_a_token_signs_nothing(closed: Api) -> None:
    """Only a digest is stored."""
    headers = bearer("somebody", jti="the-id")
    revoke_of(closed, headers)
    (row,) = closed.stored.rows("revoked_token")
    assert len(row["token_id"]) == 64
    assert "the-id" not in str(row)


def test_rows_of_expired_tokens_are_purged(closed: Api) -> None:
    """A day after the token's end; those of tokens that are still good stay."""
    sessions = closed.services.sessions
    revoke(sessions, "old", datetime.now(UTC) - timedelta(days=2))
    revoke(sessions, "good", SOON)
    assert retention.purge(sessions, closed.services.settings) == 1
    assert [is_revoked(sessions, each) for each in ("old", "good")] == [False, True]
