"""Settings that a client library has to take: asked at start, and only by processes that use it."""

import json
import ssl
import subprocess
import sys

import pytest
import redis

from payment_worker.queues import make_celery
from shared.kafka import KafkaSettings
from shared.settings import load_settings
from shared.wakeup import connect_redis
from tests.given_settings import only_the_good, problems

# What is found out with the library that a process uses it with, by a process that needs the first of them.
BAD_FOR_ITS_CLIENT = [
    ("DATABASE_URL", "DATABASE_URL", "postgresql://u:hunter2@db/p?nonsense=1", "libpq"),
    ("DATABASE_URL", "DATABASE_URL", "postgresql://u:hunter2%@db/p", "%25"),
    ("DATABASE_URL", "DATABASE_URL", "postgresql://u:hunter2@db/p?sslmode=hunter2", "sslmode"),
    ("DATABASE_URL", "DATABASE_URL", "postgresql://u@db/p?sslmode=require&sslmode=disable", "once"),
    ("DATABASE_URL", "DATABASE_URL", "postgresql://u:hunter2@db/p?ssl=true", "libpq"),
    ("DATABASE_URL", "DATABASE_URL", "postgresql://u:hunter2@%2Fvar%2Frun/p", "?host=/folder"),
    *(
        ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_CONFIG", config, named)
        for config, named in (
            ('{"security.protcol": "hunter2"}', "security.protcol"),
            ('{"security.protocol": "hunter2"}', "security.protocol"),
            ('{"debug": "generic,hunter.two"}', "refuses debug "),
            ('{"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}', "sasl.username, sasl.password"),
            ('{"security.protocol": "SASL_SSL", "sasl.mechanism": "hunter2"}', "sasl.mechanism"),
            ('{"security.protocol": "SSL", "ssl.ca.location": "/hunter2"}', "ssl.ca.location"),
            ('{"default.topic.config": "hunter2"}', "default.topic.config"),
            ('{"bootstrap.servers": "hunter2:1"}', "sets bootstrap.servers itself"),
            ('{"metadata.broker.list": "hunter2:1"}', "sets metadata.broker.list itself"),
            ('{"enable.idempotence": "false", "acks": "1"}', "sets acks, enable.idempotence itself"),
            ('{"enable.auto.commit": "true"}', "sets enable.auto.commit itself"),
            ('{"delivery.timeout.ms": "900000"}', "sets delivery.timeout.ms itself"),
            ('{"error_cb": "hunter2"}', "sets error_cb itself"),
        )
    ),
]


@pytest.fixture(autouse=True)
def _only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from an environment without any of our variables but the good ones."""
    only_the_good(monkeypatch)


@pytest.mark.parametrize(("needed", "name", "value", "expected"), BAD_FOR_ITS_CLIENT)
def test_what_its_client_would_not_take_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch, needed: str, name: str, value: str, expected: str
) -> None:
    """What libpq or librdkafka would fail on at the first use is told like any other bad value."""
    monkeypatch.setenv(name, value)
    said = problems(needed)
    assert said.startswith(f"{name}: ")
    assert expected in said
    assert len(said.splitlines()) == 1
    assert "hunter" not in said
    load_settings(())


def test_a_clients_library_is_loaded_only_where_it_is_needed() -> None:
    """They are heavy, and a process that does without one looks at its settings without it."""
    code = """if True:
        import os, sys
        from shared.settings import load_settings
        os.environ["KAFKA_CONFIG"] = '{"security.protocol": "ssl"}'
        heavy = {"psycopg", "redis", "confluent_kafka"}
        load_settings(())
        print(sorted(heavy & set(sys.modules)))
        load_settings(["DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS"])
        print(sorted(heavy & set(sys.modules)))
        """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[]", "['confluent_kafka', 'psycopg']"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka_1:9092,10.0.0.1:65535,[::1]:9093,broker.example.:1"),
        ("HOST", "api-1.example"),
        ("HOST", "10.0.0.1"),
        ("REDIS_URL", "redis://cache"),
        ("REDIS_URL", "rediss://:hunter3@cache:6380/15"),
        ("DATABASE_URL", "postgres://u:hunter%252@db/p?sslmode=verify-full&sslrootcert=/run/ca.pem"),
        (
            "DATABASE_URL",
            "postgresql://u@db:5432/p?options=-csearch_path%3Dmine&target_session_attrs=primary",
        ),
        ("DATABASE_URL", "postgresql://u@/p?host=a:5432&host=b:5432&sslmode="),
    ],
)
def test_what_is_right_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The checks leave alone what others write."""
    monkeypatch.setenv(name, value)
    settings = load_settings(["DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS"])
    assert getattr(settings, name.lower()) == value


def test_what_does_not_touch_the_promise_may_be_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor's ready-made file is taken, with the values that are ours anyway, and its own ones count."""
    given = {"security.protocol": "ssl", "client.id": "shop", "session.timeout.ms": "45000", "acks": "all"}
    monkeypatch.setenv("KAFKA_CONFIG", json.dumps(given))
    settings = load_settings(["KAFKA_BOOTSTRAP_SERVERS"])
    used = KafkaSettings("broker:9092", settings.kafka_config).with_properties(client_id="payment-relay")
    assert given.items() <= used.items()


def test_the_parameters_of_redis_are_those_that_both_clients_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery reads the same address as we do, and knows fewer parameters."""
    monkeypatch.setenv(
        "REDIS_URL",
        "rediss://cache/0?ssl_cert_reqs=optional&ssl_check_hostname=false&ssl_ca_certs=/ca.pem&ssl_ca_path=/ca"
        "&ssl_certfile=/c.pem&ssl_keyfile=/k.pem&ssl_password=hunter4",
    )
    settings = load_settings(["REDIS_URL"])
    ours = connect_redis(settings.redis_url).connection_pool.make_connection()
    celerys = make_celery(settings).connection_for_write()
    assert isinstance(ours, redis.SSLConnection)
    assert (ours.cert_reqs, celerys.ssl["ssl_cert_reqs"]) == (ssl.CERT_OPTIONAL, ssl.CERT_OPTIONAL)
    assert (ours.check_hostname, celerys.ssl["ssl_check_hostname"]) == (False, False)
