"""The command `payment-api`: its tables and its document, and how it refuses to start."""

import json
import subprocess
from dataclasses import fields

import pytest
from click.testing import CliRunner

from deploy.local.parts import program
from payment_api.cli import main, markdown_table
from payment_api.errors import ErrorCode
from shared.settings import Settings
from tests.operating import migrate_in_vain


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from an environment without any of our variables."""
    for each in fields(Settings):
        monkeypatch.delenv(each.name.upper(), raising=False)


@pytest.mark.parametrize(("name", "rows"), [("errors", len(ErrorCode)), ("settings", len(fields(Settings)))])
def test_a_table_is_markdown(name: str, rows: int) -> None:
    """A head, a line, and a row for each; every row has as many cells as the head."""
    answer = CliRunner().invoke(main, ["table", name])
    assert answer.exit_code == 0
    lines = answer.output.splitlines()
    assert answer.output == f"{markdown_table(name)}\n"
    assert len(lines) == rows + 2
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


@pytest.mark.parametrize(
    ("command", "missing"),
    [("serve", ["DATABASE_URL", "REDIS_URL", "JWT_SECRET", "DATA_KEY"]), ("migrate", ["DATABASE_URL"])],
)
def test_a_command_without_its_settings_does_not_start(command: str, missing: list[str]) -> None:
    """Status 2, and each missing variable on a line of its own on standard error."""
    answer = CliRunner().invoke(main, [command])
    assert answer.exit_code == 2
    assert f"payment-api {command} does not start" in answer.stderr
    assert [line.partition(":")[0] for line in answer.stderr.splitlines()[1:]] == missing


def test_the_document_is_printed_without_any_server() -> None:
    """`payment-api openapi` needs no settings and prints nothing but the document."""
    printed = subprocess.run([program("payment-api"), "openapi"], capture_output=True, check=True, timeout=60)
    document = json.loads(printed.stdout)
    assert document["openapi"] == "3.1.0"
    assert "/payments" in document["paths"]
    assert printed.stderr == b""


def test_a_migration_without_its_database_gives_up() -> None:
    """It says so with each try and at the end, in lines without a trace or the password; status 1."""
    said = migrate_in_vain("postgresql://user:hidden-word@127.0.0.1:9/none", "--wait", "1")
    *tries, last = [json.loads(line) for line in said.splitlines()]
    assert {each["event"] for each in tries} <= {"the database is away or busy; trying again"}
    assert (last["event"], last["level"]) == ("not migrated: the database is away or busy", "error")
    assert all("refused" in each["reason"] for each in (*tries, last))
    assert "Traceback" not in said
    assert "hidden" not in said
