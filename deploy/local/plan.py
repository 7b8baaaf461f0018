"""Put a stack together: which parts it starts, on which ports, and what each is told."""

import os
from dataclasses import dataclass
from typing import Any

from deploy.local import neighbours, webhooks
from deploy.local.identity import Identity, choose_identity, kept_secret
from deploy.local.outside import (
    DEFAULT_PORT,
    LIVE_KEY_PREFIXES,
    BadSetting,
    Outside,
    given,
    outside_parts,
    service_environment,
    simulator_key,
    wanted_port,
)
from deploy.local.parts import (
    WORKERS,
    Job,
    Part,
    broker_part,
    postgres_part,
    program,
    service_parts,
    simulator_part,
    valkey_part,
)
from deploy.local.ports import LOOPBACK, Port, PortTaken, any_free, wanted
from deploy.local.postgres import Postgres
from deploy.local.state import StateFolder


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before the first process starts."""

    servers: list[Part]
    services: list[Part]
    jobs: list[Job]  # for outside parts: run once before the services start
    postgres: Postgres | None
    endpoints: dict[str, Any]
    identity: Identity | None  # None without our own processes
    notes: list[str]


def make_plan(state: StateFolder, *, only_servers: bool, pretty: bool) -> Plan:
    """Read the settings and choose the ports; raises BadSetting, PortTaken, NotInstalled, NoPlace."""
    outside = outside_parts()
    notes: list[str] = []
    ports = _ports(outside)
    health = {} if only_servers else {name: any_free() for name in WORKERS}
    if not only_servers:
        ports["api"] = _api_port(notes)
        if neighbours.wanted():
            ports["ordering"] = any_free()
    postgres = Postgres(state, ports["postgres"].number) if "postgres" in ports else None
    endpoints = _endpoints(outside, ports, postgres)
    is_told = not only_servers and "simulator" in ports and webhooks.wanted()
    secret = webhooks.secret() if is_told else ""
    identity = None if only_servers else choose_identity(state)
    told = _settings(outside, endpoints, secret) | (identity.settings if identity else {})
    if not only_servers:
        told |= _data_key(state, outside, notes)
        told |= {} if os.environ.get("EVIDENCE_URL") else {"EVIDENCE_URL": str(state.path / "evidence")}
    told |= _neighbours(endpoints)
    environment = service_environment(told, pretty=pretty)
    jobs = {} if only_servers else _jobs(environment)
    if not only_servers and "simulator" in ports:
        jobs["simulator"] = webhooks.job(endpoints["stripe_api_url"], endpoints["api_url"], secret)
    _note_host(notes)
    return Plan(
        servers=_servers(state, ports, postgres, jobs),
        services=[] if only_servers else _services(environment, ports, health, endpoints),
        jobs=[job for part, job in jobs.items() if part not in ports],
        postgres=postgres,
        endpoints={**endpoints, "health_urls": _health_urls(ports, health)},
        identity=identity,
        notes=notes,
    )


def _neighbours(endpoints: dict[str, str | None]) -> dict[str, str]:
    url = endpoints.get("order_service_url")
    return neighbours.settings(url) if url else {}


def _services(
    environment: dict[str, str],
    ports: dict[str, Port],
    health: dict[str, Port],
    endpoints: dict[str, str | None],
) -> list[Part]:
    """Our own processes, after the order service that they ask, if there is to be one."""
    ours = service_parts(environment, ports["api"], health)
    if "ordering" not in ports:
        return ours
    brokers, prefix = str(endpoints["kafka_bootstrap_servers"]), environment.get("KAFKA_TOPIC_PREFIX", "")
    return [neighbours.ordering_part(ports["ordering"], brokers, prefix), *ours]


def _health_urls(ports: dict[str, Port], health: dict[str, Port]) -> dict[str, str]:
    """Where each of our processes serves /healthz, /readyz and /metrics."""
    served = {**({"api": ports["api"]} if "api" in ports else {}), **health}
    return {name: f"http://{LOOPBACK}:{port.number}" for name, port in served.items()}


def _ports(outside: Outside) -> dict[str, Port]:
    """A port for each server that is not an outside one."""
    is_given = {
        "postgres": outside.database_url,
        "valkey": outside.redis_url,
        "broker": outside.kafka_bootstrap_servers,
        "simulator": outside.stripe_secret_key,
    }
    return {name: any_free() for name, setting in is_given.items() if setting is None}


def _api_port(notes: list[str]) -> Port:
    number = wanted_port()
    if number == 0:
        return any_free()
    if number is not None:
        try:
            return wanted(number)
        except PortTaken as error:
            message = f"PORT: {error}; stop the program that has it, or set PORT to another number"
            raise BadSetting(message) from error
    try:
        return wanted(DEFAULT_PORT)
    except PortTaken:
        port = any_free()
        notes.append(
            f"port {DEFAULT_PORT} is taken: the API answers on port {port.number} (PORT sets another)"
        )
        return port


def _endpoints(outside: Outside, ports: dict[str, Port], postgres: Postgres | None) -> dict[str, str | None]:
    at = {name: f"{LOOPBACK}:{port.number}" for name, port in ports.items()}
    return {
        **({"order_service_url": f"http://{at['ordering']}"} if "ordering" in at else {}),
        "api_url": f"http://{at['api']}" if "api" in at else None,
        "kafka_bootstrap_servers": outside.kafka_bootstrap_servers or at["broker"],
        "database_url": outside.database_url or (postgres.url() if postgres else None),
        "redis_url": outside.redis_url or f"redis://{at['valkey']}/0",
        # None is Stripe itself.
        "stripe_api_url": f"http://{at['simulator']}" if "simulator" in at else outside.stripe_api_url,
    }


def _settings(outside: Outside, endpoints: dict[str, str | None], webhook_secret: str) -> dict[str, str]:
    """What our processes are told beside their inherited environment; outside settings stay as given."""
    brokers = endpoints["kafka_bootstrap_servers"]
    embedded = {
        "DATABASE_URL": None if outside.database_url else endpoints["database_url"],
        "REDIS_URL": None if outside.redis_url else endpoints["redis_url"],
        "KAFKA_BOOTSTRAP_SERVERS": None if outside.kafka_bootstrap_servers else brokers,
        "STRIPE_API_URL": None if outside.stripe_secret_key else endpoints["stripe_api_url"],
        "STRIPE_SECRET_KEY": None if outside.stripe_secret_key else simulator_key(),
        "STRIPE_WEBHOOK_SECRET": None if given("STRIPE_WEBHOOK_SECRET") else webhook_secret,
        # Subscribers of a stack on one machine are mostly on the same one.
        "NOTIFICATIONS_ALLOW_PRIVATE": None if _keeps_private(outside) else "on",
        "HOST": LOOPBACK,
        "PORT": (endpoints["api_url"] or "").rpartition(":")[2],
    }
    return {name: value for name, value in embedded.items() if value}


def _data_key(state: StateFolder, outside: Outside, notes: list[str]) -> dict[str, str]:
    """What stored values are sealed with: the key that is given, or one of the stack's own."""
    if given("DATA_KEY"):
        return {}
    file = kept_secret(state.data_key_file)
    if outside.database_url:
        notes.append(f"stored values are sealed with {file}: keep it with your database, or set DATA_KEY")
    return {"DATA_KEY_FILE": str(file)}


def _keeps_private(outside: Outside) -> bool:
    """Whether the rule for subscribers' addresses was set, or money may move, beside which it is refused."""
    is_live = (outside.stripe_secret_key or "").startswith(LIVE_KEY_PREFIXES)
    return is_live or given("NOTIFICATIONS_ALLOW_PRIVATE") is not None


def _jobs(environment: dict[str, str]) -> dict[str, Job]:
    """The commands that a fresh server needs, by the server they are for."""
    return {
        "postgres": Job("migrate", [program("payment-api"), "migrate"], environment),
        # In memory, the broker forgets its topics with every start.
        "broker": Job("topics", [program("payment-worker"), "topics"], environment, after_every_start=True),
    }


def _servers(
    state: StateFolder, ports: dict[str, Port], postgres: Postgres | None, jobs: dict[str, Job]
) -> list[Part]:
    own_jobs = {part: [job] for part, job in jobs.items()}
    parts: list[Part] = []
    if postgres is not None:
        parts.append(postgres_part(postgres, ports["postgres"], own_jobs.get("postgres", [])))
    if "valkey" in ports:
        parts.append(valkey_part(state, ports["valkey"]))
    if "broker" in ports:
        parts.append(_broker_part(state, ports["broker"], own_jobs.get("broker", [])))
    if "simulator" in ports:
        parts.append(simulator_part(state, ports["simulator"], own_jobs.get("simulator", [])))
    return parts


def _broker_part(state: StateFolder, port: Port, jobs: list[Job]) -> Part:
    """The broker that BROKER chooses: the embedded one, or Apache Kafka, which needs Java."""
    chosen = os.environ.get("BROKER") or "embedded"
    if chosen == "embedded":
        return broker_part(state, port, jobs)
    if chosen == "apache":
        from deploy.kafka.broker import apache_broker_part

        return apache_broker_part(state, port, jobs)
    message = f"BROKER is {chosen!r}, expected embedded or apache"
    raise BadSetting(message)


def _note_host(notes: list[str]) -> None:
    host = os.environ.get("HOST", LOOPBACK)
    if host not in {LOOPBACK, "localhost"}:
        notes.append(f"HOST={host} is not used: this stack's API stays on {LOOPBACK}")
