"""Each test stands on real servers of its own: what one test writes, no other sees."""

from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from confluent_kafka.admin import AdminClient

from shared.kafka import KafkaSettings, ensure_topics
from shared.settings import Settings
from tests.simulator import Simulator


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_gets_an_empty_migrated_database(turn: int, database_url: str) -> None:
    """The schema is there and its tables are empty, although the turn before has committed a table."""
    with psycopg.connect(database_url) as connection:
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        assert revision is not None
        assert connection.execute("SELECT to_regclass('left_behind')").fetchone() == (None,)
        assert connection.execute("SELECT count(*) FROM payment").fetchone() == (0,)
        connection.execute("CREATE TABLE left_behind ()")


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_gets_an_empty_key_space(turn: int, redis_url: str) -> None:
    """A key that the turn before has set is not there."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.set("left behind", turn, nx=True)


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_gets_topics_of_its_own(turn: int, settings: Settings) -> None:
    """Under the test's prefix the broker knows no topic until the test makes one."""
    kafka = KafkaSettings(settings.kafka_bootstrap_servers, settings.kafka_config)
    topic = settings.kafka_topic_prefix + "payment-requested"
    assert ensure_topics(kafka, {topic: 6}, deadline_s=60) == [topic]
    found = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers}).list_topics(
        topic, timeout=60
    )
    assert len(found.topics[topic].partitions) == 6


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_meets_a_simulator_without_faults(turn: int, simulator: Simulator) -> None:
    """A fault that the turn before has left is gone."""
    assert "lost_response" not in str(simulator.faults())
    simulator.fault("lost_response", order_id="nobody's")
    assert "lost_response" in str(simulator.faults())


def test_the_settings_lead_to_the_servers_of_this_test(settings: Settings, database_url: str) -> None:
    """A service started in this test's environment uses what the fixtures have made."""
    assert settings.database_url == database_url
    assert settings.simulated
    assert urlsplit(settings.stripe_api_url).hostname == "127.0.0.1"
