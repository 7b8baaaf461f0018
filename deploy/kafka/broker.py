"""One node of Apache Kafka (KRaft, broker and controller in one) whose log outlives a crash."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.kafka.install import java_command
from deploy.local.parts import Job, NotInstalled, Part, server_environment
from deploy.local.ports import LOOPBACK, Port, any_free, listens
from deploy.local.state import StateFolder

NODE_ID = "1"
CLUSTER_ID = "PaymentServiceOneNode0"  # 22 characters of base64; each folder is a cluster of its own
HEAP_MB = 512
PROBE_TIMEOUT_S = 1.0
PLAIN = "PLAINTEXT"
NO_MORE: Mapping[str, str] = {}

PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": NODE_ID,
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    # There is one node.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    # Fifty by default, which a first consumer waits for.
    "offsets.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # Tests let a consumer be taken for dead sooner than the default of 6 s allows.
    "group.min.session.timeout.ms": "1000",
    # After kill -9 the controller refuses a new process until the old one counts as dead (9 s by default).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}


class Broker:
    """The node's files in `folder`, its two ports and its commands.

    Clients come in by the security protocol `protocol`; `more` are further properties, `users` the
    passwords of SCRAM-SHA-512 by name.
    """

    def __init__(
        self,
        folder: Path,
        port: Port,
        *,
        protocol: str = PLAIN,
        more: Mapping[str, str] = NO_MORE,
        users: Mapping[str, str] = NO_MORE,
    ) -> None:
        self.folder = folder
        self._port = port
        self._controller = any_free()
        self._users = users
        at, controller = f"{LOOPBACK}:{port.number}", f"{LOOPBACK}:{self._controller.number}"
        self._properties = PROPERTIES | {
            "listeners": f"{protocol}://{at},CONTROLLER://{controller}",
            "advertised.listeners": f"{protocol}://{at}",
            "listener.security.protocol.map": f"{protocol}:{protocol},CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": f"{NODE_ID}@{controller}",
            "log.dirs": str(folder / "data"),
            **more,
        }

    def argv(self, archive: str = "") -> list[str]:
        """The command that runs the node, `archive` as in `java_command`; raises NotInstalled."""
        self._port.hand_over()
        self._controller.hand_over()
        return java_command("kafka.Kafka", str(self._settings), heap_mb=HEAP_MB, archive=archive)

    def prepare(self) -> None:
        """Write the settings, and format the storage if it is new; raises NotInstalled."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{name}={value}\n" for name, value in self._properties.items()]
        self._settings.write_text("".join(lines), encoding="utf-8")
        if (self.folder / "data" / "meta.properties").exists():
            return
        options = ["format", "--cluster-id", CLUSTER_ID, "--config", str(self._settings)]
        for name, password in self._users.items():
            options += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        command = java_command("kafka.tools.StorageTool", *options, heap_mb=HEAP_MB)
        done = subprocess.run(command, env=server_environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            message = f"Kafka's storage could not be formatted: {done.stderr or done.stdout}"
            raise NotInstalled(message)

    def close(self) -> None:
        """Give the ports up."""
        self._port.close()
        self._controller.close()

    def answers(self) -> bool:
        """Whether a client without credentials is told of a node that is in service."""
        if not listens(self._port.number):
            return False
        at = f"{LOOPBACK}:{self._port.number}"
        try:
            known = AdminClient({"bootstrap.servers": at, "log_level": 0}).list_topics(
                timeout=PROBE_TIMEOUT_S
            )
        except KafkaException:
            return False
        return bool(known.brokers)

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"


def apache_broker_part(state: StateFolder, port: Port, jobs: list[Job]) -> Part:
    """Apache Kafka as the stack's broker: its topics and messages are there again after a restart."""
    broker = Broker(state.path / "kafka", port)
    return Part(
        name="broker",
        argv=broker.argv,
        environment=server_environment(),
        cwd=broker.folder,
        port=port,
        answers=broker.answers,
        prepare=broker.prepare,
        jobs=jobs,
        is_server=True,
    )
