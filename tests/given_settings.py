"""An environment of good settings, and what is said of one that is not."""

from dataclasses import fields

import pytest

from shared.settings import BadSettings, Settings, load_settings

NAMES = [each.name.upper() for each in fields(Settings)]
GOOD = {
    "DATABASE_URL": "postgresql://user:hunter2@db:5432/payments",
    "REDIS_URL": "redis://:hunter3@cache:6379/0",
    "KAFKA_BOOTSTRAP_SERVERS": "one:9092,two:9092",
    "STRIPE_SECRET_KEY": "sk_test_hunter4",
    "KAFKA_CONFIG": '{"sasl.password": "hunter5"}',
    "JWT_SECRET": "hunter6" * 5,
    "JWT_SECRET_PREVIOUS": "hunter7" * 5,
    "DATA_KEY": "hunter10" * 4,
    "DATA_KEY_PREVIOUS": "hunter11" * 4,
    "STRIPE_WEBHOOK_SECRET": "whsec_hunter8",
    "STRIPE_WEBHOOK_SECRET_PREVIOUS": "whsec_hunter9",
    "ORDER_SERVICE_TOKEN": "hunter10",
    "ORDER_STATUS_TOKEN": "token_hunter12",
}


def only_the_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every variable of ours out of the environment, and set the good ones."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def problems(*needs: str) -> str:
    """Load settings that must be refused; return what is said."""
    with pytest.raises(BadSettings) as refused:
        load_settings(needs)
    return str(refused.value)
