"""A broker as it is in production: TLS on every connection, and nobody without a password.

It must be Apache Kafka, which `make test-kafka` fetches; the embedded broker knows neither.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme
from confluent_kafka import KafkaException, TopicPartition
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from deploy.kafka.broker import Broker
from deploy.local.client import running_stack
from deploy.local.ports import any_free
from shared import events
from shared.kafka import Deliveries, KafkaSettings, ensure_topics, make_consumer
from tests.orders import Orders
from tests.waiting import wait_until

USER, PASSWORD = "payments", "only for this test"
UP_S = 60
SOON_S = 30
SECURED = {
    "ssl.keystore.type": "PEM",
    "ssl.truststore.type": "PEM",
    "inter.broker.listener.name": "SASL_SSL",
    "sasl.enabled.mechanisms": "SCRAM-SHA-512",
    "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
    "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username="{USER}" password="{PASSWORD}";'
    ),
}


def certify(folder: Path) -> tuple[Path, Path]:
    """Make an authority and a server's certificate; return the files for the server and for its clients."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # the form that Java reads
    keystore, authority_file = folder / "server.pem", folder / "authority.pem"
    keystore.write_bytes(pem + b"".join(each.bytes() for each in leaf.cert_chain_pems))
    authority.cert_pem.write_to_path(str(authority_file))
    return keystore, authority_file


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    """Where the secured broker is, and what a client needs for it."""
    folder = tmp_path_factory.mktemp("kafka")
    keystore, authority = certify(folder)
    credentials = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
        "ssl.ca.location": str(authority),
    }
    port = any_free()
    more = SECURED | {"ssl.keystore.location": str(keystore), "ssl.truststore.location": str(authority)}
    broker = Broker(folder / "node", port, protocol="SASL_SSL", more=more, users={USER: PASSWORD})
    with closing(broker), (folder / "log").open("wb") as log:
        broker.prepare()
        with subprocess.Popen(broker.argv(), stdout=log) as process:
            try:
                settings = KafkaSettings(f"127.0.0.1:{port.number}", credentials)
                ensure_topics(settings, {"up": 1}, deadline_s=UP_S)
                yield settings
            finally:
                process.kill()


def read(kafka: KafkaSettings, topic: str, partitions: int, count: int) -> list[Any]:
    """Wait for so many messages of a topic."""
    consumer = make_consumer(kafka, f"reads {topic}", "test")
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found: list[Any] = []

    def enough() -> bool:
        found.extend(each for each in consumer.consume(count, 0.05) if each.error() is None)
        return len(found) >= count

    try:
        wait_until(enough, SOON_S, f"{count} messages on {topic}")
    finally:
        consumer.close()
    return found


def test_topics_producer_and_consumer_speak_tls_with_a_password(kafka: KafkaSettings) -> None:
    """What is delivered over the secured connection is read over one."""
    assert ensure_topics(kafka, {"secured": 3}, deadline_s=SOON_S) == ["secured"]
    deliveries = Deliveries(kafka, "test")
    messages: list[Any] = [(number, "secured", b"key", b"%d" % number, []) for number in range(10)]
    assert deliveries.deliver(messages) == set(range(10))
    deliveries.close()
    assert [each.value() for each in read(kafka, "secured", 3, 10)] == [b"%d" % n for n in range(10)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"sasl.password": "another"},
        {"sasl.username": "nobody"},
        {"ssl.ca.location": "another authority"},
        {"security.protocol": "PLAINTEXT"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_who_cannot_prove_itself_is_refused(
    kafka: KafkaSettings, wrong: dict[str, str], tmp_path: Path
) -> None:
    """A wrong password, a broker that we do not trust, no TLS at all: nothing is created or delivered."""
    topic = f"refused-{next(iter(wrong))}"
    if "ssl.ca.location" in wrong:
        wrong = {"ssl.ca.location": str(certify(tmp_path)[1])}
    refused = KafkaSettings(kafka.bootstrap_servers, {**kafka.extra, **wrong})
    with pytest.raises(KafkaException):
        ensure_topics(refused, {topic: 1}, deadline_s=1)
    deliveries = Deliveries(refused, "test")
    assert deliveries.deliver([(1, "up", b"key", b"refused", [])]) == set()
    deliveries.close()
    assert ensure_topics(kafka, {topic: 1}, deadline_s=SOON_S) == [topic]


def test_an_order_is_charged_over_secured_connections(kafka: KafkaSettings, tmp_path: Path) -> None:
    """Every process of ours finds its way by KAFKA_CONFIG alone: request, charge, announcement."""
    secured = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "KAFKA_CONFIG": json.dumps(kafka.extra)}
    with running_stack(tmp_path, env=secured) as stack:
        orders = Orders(stack)
        payment = orders.post(prefer="wait=30").json()["payment"]
        assert payment["status"] == "succeeded"
        partitions = events.topics()["payment-succeeded"]
        (announced,) = read(kafka, "payment-succeeded", partitions, 1)
        assert announced.key().decode() == payment["id"]
        wait_until(lambda: committed(kafka) == 1, SOON_S, "the request's offset to be committed")


def committed(kafka: KafkaSettings) -> int:
    """How many requests our consumer has taken."""
    consumer = make_consumer(kafka, "payment-worker", "test")
    partitions = range(events.topics()["payment-requested"])
    found = consumer.committed([TopicPartition("payment-requested", number) for number in partitions])
    consumer.close()
    return sum(max(each.offset, 0) for each in found)
