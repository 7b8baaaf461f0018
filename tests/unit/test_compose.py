"""Hold compose.yaml and the image against what the processes need and what production forbids."""

import inspect
import os
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from payment_api import cli as api_cli
from payment_worker import cli as worker_cli
from shared.gateways.stripe_http import CONNECT_TIMEOUT_S, READ_TIMEOUT_S
from shared.settings import API_NEEDS, Settings, load_settings

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())
DOCKERFILE: Final = (ROOT / "deploy/docker/Dockerfile").read_text()
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]

SERVERS: Final = ("postgres", "valkey", "kafka")
STEPS: Final = ("migrate", "topics")
PROCESSES: Final = ("api", "relay", "consumer", "tasks", "scheduler")
OURS: Final = (*STEPS, *PROCESSES)
STRIPE_KEY: Final = "sk_test_of_a_test"
WEBHOOK_SECRET: Final = "whsec_of_a_test"
SECRET: Final = re.compile("PASSWORD|PASSWD|SECRET|TOKEN(?!_HOURS)|KEY|DATABASE_URL|REDIS_URL|KAFKA_CONFIG")
VARIABLE: Final = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Return a folder of secrets, written as an operator does."""
    script = shutil.copy(ROOT / "deploy/docker/secrets.sh", tmp_path)
    given = {"STRIPE_SECRET_KEY": STRIPE_KEY, "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET}
    subprocess.run(["sh", script], env={**os.environ, **given}, check=True)
    return tmp_path / "secrets"


def seconds(duration: str) -> int:
    """Read a duration of whole seconds."""
    assert re.fullmatch(r"\d+s", duration), duration
    return int(duration[:-1])


def needs(service: str) -> tuple[str, ...]:
    """Return the settings that the command of one of our processes refuses to start without."""
    program, command = SERVICES[service]["command"]
    if program == "payment-api":
        return {"serve": API_NEEDS, "migrate": ("DATABASE_URL",)}[command]
    callback = worker_cli.main.commands[command].callback
    assert callback is not None
    found: tuple[str, ...] = inspect.getclosurevars(callback).nonlocals["needs"]
    return found


def conditions(service: str) -> dict[str, str]:
    """Return what a service waits for, with each one's condition."""
    return {name: wait["condition"] for name, wait in SERVICES[service].get("depends_on", {}).items()}


def environment(service: str) -> dict[str, str]:
    """Return a service's variables as they are when an operator has set none of them."""
    given = SERVICES[service].get("environment", {})
    return {name: VARIABLE.sub(lambda match: match[2] or "", value) for name, value in given.items()}


def test_every_process_is_there_with_a_command_that_exists() -> None:
    """Each command that runs or prepares the service has its service, and the other way round."""
    assert set(SERVICES) == {*SERVERS, *OURS, "simulator"}
    groups = {"payment-api": api_cli.main.commands, "payment-worker": worker_cli.main.commands}
    for name in OURS:
        program, command = SERVICES[name]["command"]
        assert command in groups[program], name
        assert command == {"api": "serve"}.get(name, name)


@pytest.mark.parametrize("name", OURS)
def test_process_starts_with_these_settings(
    name: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables and secret files that a process is given are all that it needs, and are acceptable."""
    for each in fields(Settings):
        monkeypatch.delenv(each.name.upper(), raising=False)
        monkeypatch.delenv(f"{each.name.upper()}_FILE", raising=False)
    mounted = {
        f"/run/secrets/{secret}": str(secrets / secret) for secret in SERVICES[name].get("secrets", ())
    }
    for variable, value in environment(name).items():
        monkeypatch.setenv(variable, mounted.get(value, value))
    settings = load_settings(needs(name))
    assert settings.log_format == "json"
    assert settings.stripe_webhook_secret == (WEBHOOK_SECRET if name == "api" else "")
    assert settings.stripe_webhook_secret_previous == ""
    assert settings.stripe_secret_key == (STRIPE_KEY if name in {"api", "tasks"} else "")
    assert bool(settings.data_key) is (name in {"api", "consumer", "tasks"})
    assert settings.data_key_previous == ""


@pytest.mark.parametrize("name", OURS)
def test_variables_are_ones_that_the_process_reads(name: str) -> None:
    """A misspelt variable would silently set nothing."""
    known = {each.name.upper() for each in fields(Settings)}
    known |= {f"{each.name.upper()}_FILE" for each in fields(Settings) if each.metadata["secret"]}
    assert set(environment(name)) <= known


def test_every_setting_can_be_chosen() -> None:
    """What the README says can be set reaches the processes; Kafka is the one of this file, without TLS."""
    read = {name.removesuffix("_FILE") for service in OURS for name in environment(service)}
    assert {each.name.upper() for each in fields(Settings)} - read == {"KAFKA_CONFIG"}


def test_evidence_is_kept_where_each_task_worker_finds_it() -> None:
    """In a volume that the replicas share, at a path that the image gives to the account they run as."""
    folder = environment("tasks")["EVIDENCE_URL"]
    assert SERVICES["tasks"]["volumes"] == [f"evidence:{folder}"]
    assert "evidence" in COMPOSE["volumes"]
    made = re.search(r"install --directory --owner=10001 --group=10001 (/var/lib/payments.*)", DOCKERFILE)
    assert made is not None
    assert folder in made[1].split()


def test_order_of_the_start() -> None:
    """Servers are healthy before the steps that prepare them, and these are done before any process."""
    assert conditions("migrate") == {"postgres": "service_healthy"}
    assert conditions("topics") == {"kafka": "service_healthy"}
    done = "service_completed_successfully"
    for name in ("api", "relay", "tasks", "scheduler"):
        assert conditions(name)["migrate"] == done, name
    for name in ("relay", "consumer"):
        assert conditions(name)["topics"] == done, name
    # It accepts payments while Kafka is away, so it does not wait for it either.
    assert not {"kafka", "topics"} & set(conditions("api"))


def test_conditions_can_come_about() -> None:
    """Only what ends by itself is waited for to the end, and only what has a health check to be healthy."""
    for name in SERVICES:
        for other, condition in conditions(name).items():
            if condition == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "no", (name, other)
            if condition == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"], (name, other)
    assert (
        SERVICES["tasks"]["depends_on"]["simulator"]["required"] is False
    )  # it is there by its profile only


def test_database_is_migrated_by_its_own_step_alone() -> None:
    """No process that serves or works changes the schema when it starts."""
    migrating = [name for name, service in SERVICES.items() if "migrate" in (service.get("command") or ())]
    assert migrating == ["migrate"]


@pytest.mark.parametrize("name", [*SERVERS, *PROCESSES, "simulator"])
def test_what_keeps_running_is_watched_and_restarted(name: str) -> None:
    """A process has a health check and comes back after it died."""
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


def test_each_process_is_asked_on_the_port_that_it_serves() -> None:
    """The API is asked where it listens, every other process on its health port."""
    for name in PROCESSES:
        port = environment(name)["PORT" if name == "api" else "HEALTH_PORT"]
        assert f"127.0.0.1:{port}/healthz" in SERVICES[name]["healthcheck"]["test"][-1], name


@pytest.mark.parametrize("name", SERVICES)
def test_container_is_confined(name: str) -> None:
    """No container writes into its image, holds a capability, gains one, or takes the machine for itself."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode", "devices"} & set(service)
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])  # noqa: S108 - in the container


@pytest.mark.parametrize("name", PROCESSES)
def test_a_stop_outlasts_the_longest_gateway_call(name: str) -> None:
    """A charge that is under way when its process is stopped is finished and recorded."""
    assert seconds(SERVICES[name]["stop_grace_period"]) > CONNECT_TIMEOUT_S + READ_TIMEOUT_S + 5


def test_only_the_api_can_be_reached_and_only_from_this_machine() -> None:
    """Ports are published on the loopback address; servers are on a network without a way out."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"api"}
    assert all(port.startswith("127.0.0.1:") for port in published["api"])
    assert COMPOSE["networks"]["backend"] == {"internal": True}
    outside = [name for name, service in SERVICES.items() if "edge" in service["networks"]]
    assert outside == ["api", "consumer", "tasks"]


def test_no_secret_has_a_default() -> None:
    """Secrets are files that an operator makes; no variable holds one, and none is written down here."""
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable):
                assert variable.endswith("_FILE"), (name, variable)
                assert value.removeprefix("/run/secrets/") in service["secrets"], (name, variable)
    for secret, source in COMPOSE["secrets"].items():
        assert source == {"file": f"./deploy/docker/secrets/{secret}"}


def test_secrets_are_made_once_and_never_without_a_key(secrets: Path) -> None:
    """Passwords stay when the script runs again, since the database keeps them too; the key is taken anew."""
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    assert set(before) == {*COMPOSE["secrets"], ".gitignore"}
    assert before["postgres_password"] != before["valkey_password"]
    script = ["sh", str(secrets.parent / "secrets.sh")]
    subprocess.run(script, env={**os.environ, "STRIPE_SECRET_KEY": "sk_test_another"}, check=True)
    after = {path.name: path.read_text() for path in secrets.iterdir()}
    assert after == {**before, "stripe_secret_key": "sk_test_another\n"}
    without = {name: value for name, value in os.environ.items() if name != "STRIPE_SECRET_KEY"}
    refused = subprocess.run(script, env=without, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "STRIPE_SECRET_KEY" in refused.stderr


def test_secrets_are_out_of_reach_of_other_accounts(secrets: Path) -> None:
    """The folder is its owner's alone and ignored by git, whatever the modes of the files in it."""
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert (secrets / ".gitignore").read_text() == "*\n"
    for name in COMPOSE["secrets"]:
        assert (secrets / name).stat().st_mode & 0o777 == 0o444  # the containers' users are others


def test_servers_are_pinned_and_keep_what_must_be_kept() -> None:
    """Servers have exact versions; the database and Kafka have volumes; Valkey evicts nothing."""
    for name, image in (
        ("postgres", "postgres:18."),
        ("valkey", "valkey/valkey:9."),
        ("kafka", "apache/kafka:4."),
    ):
        assert SERVICES[name]["image"].startswith(image)
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
    assert SERVICES["kafka"]["volumes"] == ["kafka:" + environment("kafka")["KAFKA_LOG_DIRS"]]
    assert "--maxmemory-policy noeviction" in SERVICES["valkey"]["command"][-1]
    assert environment("kafka")["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
