"""Settings: typed, complete, and refused at start by the variable's name, never by its value."""

import os
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from deploy.local.outside import outside_parts
from shared.settings import API_NEEDS, WORKER_NEEDS, Settings, load_settings, settings_table
from tests.given_settings import GOOD, NAMES, only_the_good, problems

SECRETS = [
    "DATABASE_URL", "REDIS_URL", "STRIPE_SECRET_KEY", "KAFKA_CONFIG", "JWT_SECRET", "JWT_SECRET_PREVIOUS",
    "DATA_KEY", "DATA_KEY_PREVIOUS", "STRIPE_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRET_PREVIOUS",
    "ORDER_SERVICE_TOKEN",
    "ORDER_STATUS_TOKEN",
]  # fmt: skip
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what must be refused
BAD = [
    ("DATABASE_URL", "mysql://user:hunter2@db/payments"), ("DATABASE_URL", "db:5432"),
    ("DATABASE_URL", "postgresql://"), ("DATABASE_URL", "postgresql://user:hunter2@db:port/payments"),
    ("DATABASE_URL", "postgresql://u:hunter2@db:70000/p"), ("REDIS_URL", "http://:hunter2@cache"),
    ("REDIS_URL", "cache:6379"), ("REDIS_URL", "redis://:hunter2@cache:x/0"),
    ("REDIS_URL", "redis://:hunter2@cache/zero"), ("REDIS_URL", "redis://:hunter2@cache/1/2"),
    ("REDIS_URL", "redis://:hunter2@cache/0?nonsense=1"), ("REDIS_URL", "redis://cache/0?db=3"),
    ("REDIS_URL", "redis://cache/0?ssl_cert_reqs=none"), ("REDIS_URL", "rediss://cache/0?ssl_cert_reqs=hunter2"),
    ("REDIS_URL", "redis://[::1"), ("REDIS_URL", "redis://:hunter2\u2100@cache/0"),
    ("KAFKA_BOOTSTRAP_SERVERS", "broker"), ("KAFKA_BOOTSTRAP_SERVERS", "one:9092, two:9092"),
    ("KAFKA_BOOTSTRAP_SERVERS", "one:9092,"), ("KAFKA_BOOTSTRAP_SERVERS", "one:99999"),
    ("KAFKA_BOOTSTRAP_SERVERS", "one:0"), ("KAFKA_BOOTSTRAP_SERVERS", "one two:9092"),
    ("KAFKA_BOOTSTRAP_SERVERS", "ssl://one:9092"), ("KAFKA_CONFIG", "{"), ("KAFKA_CONFIG", "[]"),
    ("KAFKA_CONFIG", '{"a": 1}'), ("KAFKA_CONFIG", '"hunter2"'), ("KAFKA_TOPIC_PREFIX", "a b"),
    ("KAFKA_TOPIC_PREFIX", "x" * 101), ("STRIPE_SECRET_KEY", "hunter2"),
    ("STRIPE_SECRET_KEY", "pk_test_hunter2"), ("STRIPE_API_URL", "localhost:12111"),
    ("STRIPE_API_URL", "http://127.0.0.1:port"), ("STRIPE_API_URL", "http://127.0.0.1/v1"),
    ("STRIPE_API_URL", "http://127.0.0.1//v1/"), ("STRIPE_API_URL", "http://127.0.0.1?hunter2"),
    ("STRIPE_API_URL", "http://127.0.0.1/?"), ("STRIPE_API_URL", "http://127.0.0.1/#hunter2"),
    ("STRIPE_API_URL", "http://u:hunter2@127.0.0.1"), ("STRIPE_API_URL", "http://:80"),
    ("STRIPE_API_URL", "http://a b"), ("STRIPE_MAX_RPS", "-1"), ("STRIPE_MAX_RPS", "many"),
    ("STRIPE_MAX_RPS", "nan"), ("STRIPE_MAX_RPS", "inf"), ("PORT", "http"), ("PORT", "-1"), ("PORT", "65536"),
    ("PORT", "80.5"), ("HEALTH_PORT", "65536"), ("HEALTH_PORT", "any"),
    ("HOST", "not a host"), ("HOST", "http://127.0.0.1"), ("HOST", "127.0.0.1:80"), ("HOST", "300.1.1.1"),
    ("HOST", "a..b"), ("HOST", "-a"), ("WEB_WORKERS", "0"), ("WEB_THREADS", "1"), ("WAIT_SLOTS", "-1"),
    ("WAIT_DEFAULT_S", "31"), ("WAIT_DEFAULT_S", "nan"), ("WAIT_DEFAULT_S", "inf"), ("WAIT_DEFAULT_S", "ten"),
    ("DATABASE_POOL_SIZE", "0"), ("TASK_THREADS", "0"), ("LEASE_S", "0"), ("RECOVERY_AFTER_S", "0"),
    ("VERIFY_ABSENCE_S", "-5"), ("ACTION_TIMEOUT_S", "0"), ("RETENTION_INBOX_DAYS", "0"),
    ("RETENTION_IDEMPOTENCY_DAYS", "3651"), ("RETENTION_NOTIFICATIONS_DAYS", "-1"),
    ("NOTIFICATIONS_ALLOW_PRIVATE", "yes"),
    ("RECONCILE_EVERY_H", "-1"), ("RECONCILE_BACK_H", "0"), ("RECONCILE_MARGIN_S", "86401"),
    ("ORDER_STATUS_URL", "orders/hunter2"), ("ORDER_STATUS_URL", "http://u:hunter2@orders"),
    ("ORDER_STATUS_URL", "http://orders/?key=hunter2"), ("ORDER_STATUS_URL", "http://orders/a?"),
    ("ORDER_STATUS_TOKEN", "hunter2 hunter2"),
    ("ORDER_SERVICE_URL", "orders:8080"), ("ORDER_SERVICE_URL", "http://u:hunter2@orders"),
    ("ORDER_SERVICE_URL", "http://orders/?key=hunter2"), ("ORDER_SERVICE_TOKEN", "hunter2 hunter2"),
    ("ORDER_SERVICE_TIMEOUT_S", "0"), ("RESERVATIONS", "yes"), ("INVENTORY_REFUNDS", "true"),
    ("STRIPE_WEBHOOK_SECRET_PREVIOUS", "hunter2"),
    ("STRIPE_WEBHOOK_SECRET", "hunter2"), ("STRIPE_WEBHOOK_SECRET", "hunter2 hunter2"),
    ("AMOUNT_MINIMUMS", "50"), ("AMOUNT_MINIMUMS", '{"USD": "50"}'),
    ("AMOUNT_MINIMUMS", '{"USD": 0.5}'), ("AMOUNT_MINIMUMS", '{"USD": true}'),
    ("AMOUNT_MINIMUMS", '{"usd": 50}'), ("AMOUNT_MAXIMUMS", '{"USD": 0}'), ("AMOUNT_MAXIMUMS", '{"XXX": 50}'),
    ("AMOUNT_MAXIMUMS", '{"USD": -1}'), ("AMOUNT_MAXIMUMS", '{"USD": 1000000000000}'),
    ("AMOUNT_MAXIMUMS", '{"USD": 100000000000000000000}'), ("AMOUNT_MAXIMUMS", '{"JPY": 10}'),
    ("AMOUNT_MINIMUMS", '{"USD": 1000000000000}'),
    ("PAYMENT_METHODS", "credit_card, paypal"), ("PAYMENT_METHODS", "credit_crad"),
    ("AUTH", "off"), ("AUTH", "Optional"), ("JWT_SECRET", "hunter2"), ("JWT_SECRET", "hunter2" + " " * 40),
    ("JWT_SECRET", "-----BEGIN PUBLIC KEY-----hunter2"), ("JWT_SECRET_PREVIOUS", "hunter2" * 4),
    ("DATA_KEY", "hunter2"), ("DATA_KEY", "-----BEGIN PRIVATE KEY-----hunter2"),
    ("DATA_KEY_PREVIOUS", "hunter2" * 4),
    ("JWKS_URL", "issuer.example/keys"), ("JWKS_URL", "http://issuer.example/keys"),
    ("JWKS_URL", "ftp://127.0.0.1/keys"), ("JWKS_URL", "https://u:hunter2@issuer.example/keys"),
    ("RATE_LIMIT_PRINCIPAL", "6000"), ("RATE_LIMIT_PRINCIPAL", "0/minute"),
    ("RATE_LIMIT_CUSTOMER", "x"),
    ("RATE_LIMIT_ADDRESS", "10/day"), ("RATE_LIMIT_ADDRESS", "-1/minute"), ("RATE_LIMIT_ADDRESS", "none"),
    ("TRUSTED_PROXIES", "-1"), ("TRUSTED_PROXIES", "yes"),
    ("ACCOUNT_TOKEN_HOURS", "0"), ("ACCOUNT_TOKEN_HOURS", "721"), ("LOGIN_FAILURES_PER_EMAIL", "0"),
    ("LOGIN_FAILURES_PER_ADDRESS", "many"),
    ("EVIDENCE_URL", "evidence"), ("EVIDENCE_URL", "ftp://host/hunter2"), ("EVIDENCE_URL", "s3://"),
    ("EVIDENCE_URL", "s3://bucket/hunter2"), ("RETENTION_EVIDENCE_DAYS", "0"),
    ("PAYMENT_METHODS", "Credit Card"), ("LOG_LEVEL", "verbose"), ("LOG_FORMAT", "xml"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from an environment without any of our variables but the good ones."""
    only_the_good(monkeypatch)


def test_good_settings_are_typed() -> None:
    """Every value has its type, and what is not set has its default."""
    settings = load_settings(WORKER_NEEDS)
    assert settings.database_url == GOOD["DATABASE_URL"]
    assert settings.kafka_config == {"sasl.password": "hunter5"}
    assert (settings.host, settings.port) == ("127.0.0.1", 5004)
    assert (settings.wait_default_s, settings.kafka_topic_prefix) == (10.0, "")
    assert (settings.amount_minimums, settings.amount_maximums) == ({}, {})
    assert settings.payment_methods == ["credit_card", "debit_card", "apple_pay", "google_pay"]
    assert (settings.simulated, settings.auth_required) == (False, True)


def test_set_values_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, lists and JSON are parsed."""
    given = {
        "PORT": "8080", "WAIT_DEFAULT_S": "2.5", "PAYMENT_METHODS": "credit_card,paypal",
        "LOG_LEVEL": "debug", "AMOUNT_MINIMUMS": '{"USD": 100}', "STRIPE_API_URL": "http://127.0.0.1:12111",
        "HOST": EVERYWHERE,
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(())
    assert (settings.port, settings.wait_default_s, settings.host) == (8080, 2.5, given["HOST"])
    assert settings.payment_methods == ["credit_card", "paypal"]
    assert settings.amount_minimums == {"USD": 100}
    assert settings.simulated is True


@pytest.mark.parametrize(
    ("max_rps", "api_url", "allowed"),
    [("", "", 25), ("", "http://127.0.0.1:1", 0), ("10", "http://127.0.0.1:1", 10), ("0", "", 0)],
)
def test_the_request_budget_is_stripes_unless_it_is_a_simulator(
    monkeypatch: pytest.MonkeyPatch, max_rps: str, api_url: str, allowed: float
) -> None:
    """What is set holds; else Stripe's own limit, and none against a simulator."""
    monkeypatch.setenv("STRIPE_MAX_RPS", max_rps)
    monkeypatch.setenv("STRIPE_API_URL", api_url)
    assert load_settings(()).gateway_max_rps == allowed


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_a_blank_value_is_no_value(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    """As compose files leave them: the default holds, and what is needed is missing."""
    for name in ("PORT", "LOG_LEVEL", "AMOUNT_MINIMUMS", "DATABASE_URL"):
        monkeypatch.setenv(name, blank)
    settings = load_settings(())
    assert (settings.port, settings.log_level, settings.amount_minimums) == (5004, "info", {})
    assert "DATABASE_URL: is not set" in problems(*API_NEEDS)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """One line with the variable and what is expected; the value itself is not repeated."""
    monkeypatch.setenv(name, value)
    said = problems()
    assert said.startswith(f"{name}: ")
    assert len(said.splitlines()) == 1
    assert "hunter" not in said


def test_a_bad_value_is_tried_of_every_setting_that_has_to_be_something() -> None:
    """A new setting with a check, or of a type that not every text is of, cannot be forgotten above."""
    checked = {each.name.upper() for each in fields(Settings) if each.metadata["check"]}
    typed = {each.name.upper() for each in fields(Settings) if each.metadata["kind"] != "str"}
    assert checked | typed <= {name for name, _ in BAD}


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("STRIPE_API_URL", "http://127.0.0.1:12111/", "http://127.0.0.1:12111"),
        ("STRIPE_API_URL", "https://[::1]", "https://[::1]"),
        ("ORDER_SERVICE_URL", "http://orders.example/v2/\n", "http://orders.example/v2"),
        ("ORDER_STATUS_URL", "http://order_service:8080/api/", "http://order_service:8080/api"),
    ],
)
def test_a_slash_at_the_end_of_an_address_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str, taken: str
) -> None:
    """Paths are put behind it, and //v1/payment_intents is nothing that a gateway knows."""
    monkeypatch.setenv(name, given)
    assert getattr(load_settings(()), name.lower()) == taken


def test_the_local_stack_drops_the_slash_of_an_outside_simulator() -> None:
    """Its endpoints are what the demo and the benchmarks put paths behind."""
    given = {"STRIPE_API_URL": "http://127.0.0.1:12111/", "STRIPE_SECRET_KEY": "sk_test_1"}
    assert outside_parts(given).stripe_api_url == "http://127.0.0.1:12111"


def test_a_smallest_amount_above_the_largest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing could be charged in such a currency; a minimum that is lowered makes room."""
    monkeypatch.setenv("AMOUNT_MAXIMUMS", '{"EUR": 500, "JPY": 10}')
    monkeypatch.setenv("AMOUNT_MINIMUMS", '{"EUR": 501, "JPY": 10}')
    assert problems() == "AMOUNT_MAXIMUMS: that of EUR is below its smallest amount, 501"
    monkeypatch.setenv("AMOUNT_MINIMUMS", '{"EUR": 500, "JPY": 10}')
    assert load_settings(()).amount_maximums == {"EUR": 500, "JPY": 10}


@pytest.mark.parametrize("name", [*API_NEEDS, *WORKER_NEEDS])
def test_a_missing_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What a process needs and does not have is named, with what it is."""
    monkeypatch.delenv(name)
    said = problems(*WORKER_NEEDS, *API_NEEDS)
    assert said.startswith(f"{name}: is not set (")
    assert len(said.splitlines()) == 1


def test_every_problem_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody should have to start ten times to find ten mistakes."""
    for name, value in (("PORT", "x"), ("LOG_LEVEL", "loud"), ("LEASE_S", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DATABASE_URL")
    said = [line.partition(":")[0] for line in problems(*API_NEEDS).splitlines()]
    assert sorted(said) == ["DATABASE_URL", "LEASE_S", "LOG_LEVEL", "PORT"]


def test_an_api_needs_neither_kafka_nor_stripe(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts while both are down, so it starts without knowing of them."""
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_CONFIG", "STRIPE_SECRET_KEY"):
        monkeypatch.delenv(name)
    assert load_settings(API_NEEDS).kafka_config == {}


def test_only_the_api_needs_the_secret_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker starts without it; an API does only where nobody has to say who asks."""
    monkeypatch.delenv("JWT_SECRET")
    assert load_settings(WORKER_NEEDS).auth_required
    assert problems(*API_NEEDS).startswith("JWT_SECRET: is not set (")
    monkeypatch.setenv("AUTH", "optional")
    assert not load_settings(API_NEEDS).auth_required


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", ""])
def test_tokens_may_be_optional_on_loopback(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Nobody else can reach it there; loopback is also where it listens by default."""
    monkeypatch.setenv("AUTH", "optional")
    monkeypatch.setenv("HOST", host)
    assert not load_settings(API_NEEDS).auth_required


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "10.0.0.1", "api.example", "127.0.0.1.example"])
@pytest.mark.parametrize("needs", [API_NEEDS, WORKER_NEEDS])
def test_tokens_are_not_optional_elsewhere(
    monkeypatch: pytest.MonkeyPatch, host: str, needs: tuple[str, ...]
) -> None:
    """An address that others may reach is refused, naming both variables."""
    monkeypatch.setenv("AUTH", "optional")
    monkeypatch.setenv("HOST", host)
    said = problems(*needs)
    assert said.startswith("AUTH: ")
    assert "HOST" in said
    assert len(said.splitlines()) == 1


def test_an_outside_issuers_keys_do_instead_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens can be checked then; its address is https, but on this machine."""
    monkeypatch.delenv("JWT_SECRET")
    for url in (
        "https://issuer.example/.well-known/jwks.json",
        "http://127.0.0.1:8080/keys",
        "http://[::1]/k",
    ):
        monkeypatch.setenv("JWKS_URL", url)
        assert load_settings(API_NEEDS).jwks_url == url


@pytest.mark.parametrize("key", ["sk_live_hunter2", "rk_live_hunter2"])
@pytest.mark.parametrize("needs", [API_NEEDS, WORKER_NEEDS, ("KAFKA_BOOTSTRAP_SERVERS",)])
def test_a_live_key_needs_tokens(monkeypatch: pytest.MonkeyPatch, key: str, needs: tuple[str, ...]) -> None:
    """Real money does not move where nobody has to say who they are, whichever process is asked."""
    monkeypatch.setenv("STRIPE_SECRET_KEY", key)
    assert load_settings(needs).stripe_secret_key == key
    monkeypatch.setenv("AUTH", "optional")
    said = problems(*needs)
    assert said.startswith("STRIPE_SECRET_KEY: a live key is refused unless AUTH is required")
    assert "hunter2" not in said


def test_subscribers_at_private_addresses_need_a_test_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where real money moves, nobody lets us call what only we can reach."""
    monkeypatch.setenv("NOTIFICATIONS_ALLOW_PRIVATE", "on")
    assert load_settings(()).private_notifications
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_live_hunter2")
    assert problems().startswith("NOTIFICATIONS_ALLOW_PRIVATE: on is refused beside a live key")


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_may_come_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, ending: str
) -> None:
    """NAME_FILE names it; the line break at its end, which most tools write, is no part of the secret."""
    expected = getattr(load_settings(()), name.lower())
    secret = tmp_path / "secret"
    secret.write_bytes((GOOD[name] + ending).encode())
    monkeypatch.delenv(name)
    monkeypatch.setenv(f"{name}_FILE", str(secret))
    assert getattr(load_settings([name]), name.lower()) == expected


def test_a_secret_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing file and a folder are refused by the variable's name."""
    monkeypatch.delenv("DATABASE_URL")
    for path in (tmp_path / "nowhere", tmp_path):
        monkeypatch.setenv("DATABASE_URL_FILE", str(path))
        assert problems(*API_NEEDS).startswith("DATABASE_URL: ")


def test_a_dollar_in_a_password_is_a_dollar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a value is expanded."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:pa$HOME${PATH}@db/payments")
    assert load_settings(()).database_url == os.environ["DATABASE_URL"]


def test_secrets_are_not_shown() -> None:
    """Neither repr nor str of the settings holds a secret, whatever log line they end up in."""
    settings = load_settings(WORKER_NEEDS)
    assert "hunter" not in repr(settings) + str(settings) + f"{settings}"
    assert "127.0.0.1" in repr(settings)


def test_settings_cannot_be_changed() -> None:
    """They are read once."""
    with pytest.raises(FrozenInstanceError):
        load_settings(()).port = 1  # type: ignore[misc]


def test_the_table_tells_every_setting() -> None:
    """Each has a row with its default and what it means; secrets say that a file will do."""
    table = {name.partition(" ")[0]: (name, default, meaning) for name, default, meaning in settings_table()}
    assert list(table) == NAMES
    assert {name for name, row in table.items() if row[0].endswith("(or _FILE)")} == set(SECRETS)
    assert all(meaning for _, _, meaning in table.values())
    assert {name for name, row in table.items() if row[1] == "must be set"} == {
        "DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS", "STRIPE_SECRET_KEY",
    }  # fmt: skip
    assert table["PORT"][1] == "5004"
