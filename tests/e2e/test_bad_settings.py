"""A process with a bad setting does not start: it says which one is wrong, and never shows a secret."""

import os
import subprocess

import pytest

from deploy.local.parts import program

GOOD = {
    "DATABASE_URL": "postgresql://user:hidden-password@127.0.0.1:9/none",
    "REDIS_URL": "redis://127.0.0.1:9/0",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "STRIPE_SECRET_KEY": "sk_test_hidden",
    "STRIPE_API_URL": "http://127.0.0.1:9",
    "DATA_KEY": "hidden" * 6,
}
COMMANDS = {
    "payment-api migrate": {"DATABASE_URL"},
    "payment-api serve": {"DATABASE_URL", "REDIS_URL", "JWT_SECRET", "DATA_KEY"},
    "payment-worker topics": {"KAFKA_BOOTSTRAP_SERVERS"},
    "payment-worker relay": {"DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"},
    "payment-worker consumer": {"DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS", "DATA_KEY"},
    "payment-worker tasks": {"DATABASE_URL", "REDIS_URL", "STRIPE_SECRET_KEY", "DATA_KEY"},
    "payment-worker scheduler": {"DATABASE_URL", "REDIS_URL"},
}
WITH_KAFKA = ["payment-worker topics", "payment-worker relay", "payment-worker consumer"]
REFUSED = 2
CALL_S = 120


def refuse(command: str, **settings: str) -> set[str]:
    """Run a command, which must refuse to start; return the settings that it names."""
    name, *arguments = command.split()
    environment = {"PATH": os.environ["PATH"], **settings}
    ended = subprocess.run(
        [program(name), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=CALL_S,
        check=False,
    )
    assert ended.returncode == REFUSED, ended
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert "hidden" not in ended.stderr
    first, *problems = ended.stderr.splitlines()
    assert first == f"{command} does not start:"
    return {problem.partition(":")[0] for problem in problems}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_names_every_setting_that_is_missing(command: str) -> None:
    """All of them at once, and only those that this process needs."""
    assert refuse(command) == COMMANDS[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_names_every_setting_that_is_wrong(command: str) -> None:
    """Also what this process itself would not use: a typing error is found before it matters."""
    wrong = {
        "DATABASE_URL": "mysql://hidden",
        "STRIPE_SECRET_KEY": "pk_test_hidden",
        "JWT_SECRET": "hidden",
        "DATA_KEY": "hidden",
        "LEASE_S": "soon",
        "LOG_LEVEL": "loud",
    }
    assert refuse(command, **(GOOD | wrong)) == set(wrong)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_live_key_without_tokens_starts_nothing(command: str) -> None:
    """Whichever process has the key looks at both; so it is with an address that others reach."""
    live = {"STRIPE_SECRET_KEY": "sk_live_hidden", "AUTH": "optional"}
    assert refuse(command, **(GOOD | live)) == {"STRIPE_SECRET_KEY"}
    assert refuse(command, **(GOOD | live), HOST="10.0.0.1") == {"STRIPE_SECRET_KEY", "AUTH"}


@pytest.mark.parametrize("command", [*WITH_KAFKA, "payment-worker dead-letters list"])
def test_a_property_that_librdkafka_does_not_know_is_refused_at_start(command: str) -> None:
    """Not at the first event, when it is too late; and PostgreSQL's parameters where that is used."""
    wrong = {
        "KAFKA_CONFIG": '{"security.protcol": "hidden"}',
        "DATABASE_URL": GOOD["DATABASE_URL"] + "?nonsense=hidden",
    }
    kafka_alone = command == "payment-worker topics"
    assert refuse(command, **(GOOD | wrong)) == ({"KAFKA_CONFIG"} if kafka_alone else set(wrong))
