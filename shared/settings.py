"""Typed settings, read once from the environment; the only place that looks there."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from environs import EnvValidationError, FileAwareEnv
from marshmallow import ValidationError
from marshmallow.validate import OneOf, Range, Regexp

from shared import settings_checks as checks
from shared.money import DEFAULT_MINIMUMS_MINOR
from shared.settings_clients import refused_by_clients
from shared.settings_reading import explain, read, setting


class BadSettings(Exception):
    """One or more environment variables are missing or not acceptable; the message names each."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting; the environment variable is the field's name in capitals."""

    database_url: str = setting(
        "PostgreSQL, as libpq writes it: postgresql://user:password@host:port/name",
        check=checks.url("postgresql", "postgres"),
        secret=True,
    )
    redis_url: str = setting(
        "Valkey or Redis: redis://host:port/0, or rediss:// for TLS with ssl_... parameters",
        check=checks.redis_url,
        secret=True,
    )
    kafka_bootstrap_servers: str = setting("Kafka brokers: host:port,host:port", check=checks.brokers)
    kafka_config: dict[str, str] = setting(
        "more librdkafka properties as a JSON object of strings, for TLS and SASL; none on which rests that"
        " nothing is lost",
        "{}",
        "json",
        checks.properties,
        secret=True,
    )
    kafka_topic_prefix: str = setting(
        "put before every topic's name", "", check=Regexp(r"^[A-Za-z0-9._-]{0,100}$")
    )
    stripe_secret_key: str = setting("Stripe's secret key", check=checks.stripe_key, secret=True)
    stripe_api_url: str = setting(
        "a Stripe simulator's address; empty: Stripe itself",
        "",
        check=checks.origin_url,
    )
    stripe_max_rps: float | None = setting(
        "requests a second to Stripe, of all processes together; 0: no limit; "
        "empty: 25, but no limit with STRIPE_API_URL",
        None,
        "float",
        Range(0, 10_000),
    )
    auth: str = setting(
        "`required`: every request brings a bearer token; `optional`, for loopback alone: one without is an"
        " operator's",
        "required",
        check=OneOf(["required", "optional"]),
    )
    jwks_url: str = setting(
        "where an outside issuer of tokens (RS256, ES256) publishes its keys: https, or http on loopback",
        "",
        check=checks.https_url,
    )
    jwt_issuer: str = setting("the `iss` that every token must have; empty: not looked at", "")
    jwt_audience: str = setting(
        "our name, which every token must have in `aud`; empty: a token that has an `aud` is refused", ""
    )
    jwt_secret: str = setting(
        "what bearer tokens are signed with (HS256), 32 bytes or more; the API needs it unless AUTH=optional"
        " or JWKS_URL is set",
        "",
        check=checks.signing_secret,
        secret=True,
    )
    jwt_secret_previous: str = setting(
        "the secret before, whose tokens are still taken while it is being replaced",
        "",
        check=checks.signing_secret,
        secret=True,
    )
    data_key: str = setting(
        "what sensitive values are sealed with before they are stored, 32 bytes or more; keep it as long as"
        " the database",
        "",
        check=checks.signing_secret,
        secret=True,
    )
    data_key_previous: str = setting(
        "another key whose values are still opened, while DATA_KEY is being replaced",
        "",
        check=checks.signing_secret,
        secret=True,
    )
    rate_limit_principal: str = setting(
        "requests that one caller (a token's `sub`) may make, as in `500/second`; `off`: any number",
        "30000/minute",
        check=checks.rate,
    )
    rate_limit_customer: str = setting(
        "the same for a caller that is a customer, a person who pays", "600/minute", check=checks.rate
    )
    rate_limit_address: str = setting(
        "the same for a network address, with good tokens, bad ones or none; IPv6 by its /64",
        "30000/minute",
        check=checks.rate,
    )
    trusted_proxies: int = setting(
        "proxies in front of the API whose X-Forwarded-For and X-Forwarded-Proto are believed",
        0,
        "int",
        Range(0, 10),
    )
    stripe_webhook_secret: str = setting(
        "the signing secret of Stripe's webhook endpoint, whsec_...; empty: webhooks are refused",
        "",
        check=Regexp(r"^\S{8,}\s*$"),
        secret=True,
    )
    stripe_webhook_secret_previous: str = setting(
        "the secret before, while it is being replaced; its signatures count too",
        "",
        check=Regexp(r"^\S{8,}\s*$"),
        secret=True,
    )
    account_token_hours: int = setting(
        "how long the token of a login to an account is good", 12, "int", Range(1, 720)
    )
    login_failures_per_email: int = setting(
        "logins to one account that may fail within 15 minutes; then 429", 10, "int", Range(1, 10_000)
    )
    login_failures_per_address: int = setting(
        "logins from one network address, IPv6 by its /64, that may fail within 15 minutes; then 429",
        100,
        "int",
        Range(1, 1_000_000),
    )
    host: str = setting(
        "the address that the API listens on, and a worker process with HEALTH_PORT",
        "127.0.0.1",
        check=checks.host,
    )
    port: int = setting("the API's port", 5004, "int", Range(0, 65535))
    health_port: int = setting(
        "where a worker process serves /healthz, /readyz and /metrics; 0: a free port, named in its log",
        0,
        "int",
        Range(0, 65535),
    )
    web_workers: int = setting("API processes", 2, "int", Range(1, 64))
    web_threads: int = setting("threads of each API process", 160, "int", Range(2, 1024))
    wait_slots: int = setting(
        "requests of each API process that may wait for an outcome; past it 202 at once",
        128,
        "int",
        Range(0, 1000),
    )
    wait_default_s: float = setting(
        "how long an answer waits for the outcome by default", 10.0, "float", Range(0, 30)
    )
    database_pool_size: int = setting(
        "connections that one process may hold at once", 8, "int", Range(1, 100)
    )
    task_threads: int = setting(
        "operations that one task worker may have in flight", 64, "int", Range(1, 512)
    )
    lease_s: float = setting(
        "how long a claim on an operation lasts unless renewed", 15.0, "float", Range(1, 300)
    )
    recovery_after_s: float = setting(
        "how long an operation may lie unclaimed before it is dispatched again", 5.0, "float", Range(0.1, 600)
    )
    verify_absence_s: float = setting(
        "time between the two looks at Stripe that must both find nothing before a charge is tried anew",
        600.0,
        "float",
        Range(0.1, 86400),
    )
    action_timeout_s: float = setting(
        "how long a customer may take to act, for instance to authenticate; then the payment is cancelled",
        86400.0,
        "float",
        Range(1, 30 * 86400),
    )
    retention_idempotency_days: int = setting(
        "how long a client's idempotency keys are kept", 30, "int", Range(1, 3650)
    )
    retention_inbox_days: int = setting(
        "how long webhooks and messages that are done with, and ended reservations, are kept",
        30,
        "int",
        Range(1, 3650),
    )
    retention_notifications_days: int = setting(
        "how long webhooks to subscribers are kept that were delivered or given up", 30, "int", Range(1, 3650)
    )
    notifications_allow_private: str = setting(
        "`on`: subscribers may register private addresses and plain HTTP; for tests and the local stack",
        "off",
        check=OneOf(["on", "off"]),
    )
    order_status_url: str = setting(
        "the order service that hears how payments of the delivery contract end, by PUT at"
        " /updateStatus below this address; empty: none",
        "",
        check=checks.base_url,
    )
    order_status_token: str = setting(
        "the bearer token for it where the caller's own is not at hand",
        "",
        check=Regexp(r"^[\x21-\x7e]{1,4096}\s*$"),
        secret=True,
    )
    reconcile_every_h: float = setting(
        "hours between two comparisons of Stripe's books with ours; 0: none but the operator's",
        24.0,
        "float",
        Range(0, 24 * 365),
    )
    reconcile_back_h: float = setting(
        "how far back each of them goes, in hours", 48.0, "float", Range(0.1, 24 * 365)
    )
    reconcile_margin_s: float = setting(
        "what Stripe made less than so many seconds ago is not compared yet", 900.0, "float", Range(0, 86400)
    )
    evidence_url: str = setting(
        "where what was said to Stripe and back is kept, sealed: a folder's path, or s3://bucket/prefix"
        " (pip install 'payment-service[s3]'); empty: nowhere",
        "",
        check=checks.evidence_url,
    )
    retention_evidence_days: int = setting("how long it is kept there", 180, "int", Range(1, 3650))
    amount_minimums: dict[str, int] = setting(
        "smallest amount by currency in minor units, as JSON; beside the defaults",
        "{}",
        "json",
        checks.amounts_minor,
    )
    amount_maximums: dict[str, int] = setting(
        "largest amount by currency in minor units, as JSON; beside the default",
        "{}",
        "json",
        checks.amounts_minor,
    )
    payment_methods: list[str] = setting(
        "payment methods that the Stripe account has enabled, by commas; a simulator takes all",
        "credit_card,debit_card,apple_pay,google_pay",
        "list",
        checks.payment_methods,
    )
    order_service_url: str = setting(
        "where orders are looked up before they are charged: GET {url}/orders/{orderId}; empty: any order"
        " is accepted",
        "",
        check=checks.base_url,
    )
    order_service_token: str = setting(
        "the bearer token that this service shows the order service",
        "",
        check=Regexp(r"^\S+\s*$"),
        secret=True,
    )
    order_service_timeout_s: float = setting(
        "how long the order service may take to answer; it is asked twice", 3.0, "float", Range(0.1, 10)
    )
    reservations: str = setting(
        "`on`: a reservationId must be one of an active reservation, and what is not yet paid is cancelled"
        " when it expires; `off`: it is only recorded",
        "off",
        check=OneOf(["on", "off"]),
    )
    inventory_refunds: str = setting(
        "`on`: an order that is out of stock is given its money back; `off`: that is only recorded",
        "off",
        check=OneOf(["on", "off"]),
    )
    log_level: str = setting(
        "debug, info, warning or error", "info", check=OneOf(["debug", "info", "warning", "error"])
    )
    log_format: str = setting(
        "json, pretty, or auto: pretty on a terminal", "auto", check=OneOf(["auto", "json", "pretty"])
    )

    @property
    def simulated(self) -> bool:
        """Whether charges go to a simulator, so that no money moves."""
        return bool(self.stripe_api_url)

    @property
    def auth_required(self) -> bool:
        """Whether a request without a token is refused."""
        return self.auth == "required"

    @property
    def private_notifications(self) -> bool:
        """Whether subscribers may be called at private addresses and over plain HTTP."""
        return self.notifications_allow_private == "on"

    @property
    def gateway_max_rps(self) -> float:
        """Requests a second that the gateway may be sent, from the whole account; 0 for no limit."""
        if self.stripe_max_rps is not None:
            return self.stripe_max_rps
        return 0.0 if self.simulated else STRIPE_RPS


STRIPE_RPS = 25.0  # what Stripe lets through on one endpoint by default, of 100 for an account
API_NEEDS = ("DATABASE_URL", "REDIS_URL", "JWT_SECRET", "DATA_KEY")
WORKER_NEEDS = ("DATABASE_URL", "REDIS_URL", "STRIPE_SECRET_KEY", "DATA_KEY")


def load_settings(needs: Collection[str]) -> Settings:
    """Read every setting; those in `needs` must be there, and their client libraries have to take them.

    A secret may also come from the file that NAME_FILE names. Raises BadSettings, naming every
    variable that is missing or wrong and never its value.
    """
    environment = FileAwareEnv(expand_vars=False)
    values: dict[str, Any] = {}
    problems: list[str] = []
    meaning = {each.name: each.metadata["help"] for each in fields(Settings)}
    for each in fields(Settings):
        name = each.name.upper()
        try:
            values[each.name] = read(environment, name, each, required=_is_needed(name, needs, values))
        except (EnvValidationError, ValidationError, ValueError, OSError) as error:
            problems.append(f"{name}: {explain(error)} ({meaning[each.name]})")
    problems += [
        f"{name.upper()}: {why} ({meaning[name]})" for name, why in refused_by_clients(needs, values)
    ]
    problems += _combinations(values)
    if problems:
        raise BadSettings("\n".join(problems))
    return Settings(**values)


def _is_needed(name: str, needs: Collection[str], values: Mapping[str, Any]) -> bool:
    if name == "JWT_SECRET" and (values.get("auth") == "optional" or values.get("jwks_url")):
        return False
    return name in needs


def _combinations(values: Mapping[str, Any]) -> Iterator[str]:
    """What is acceptable by itself and unsafe together; every process looks, whichever of it is its own."""
    is_live = values.get("stripe_secret_key", "").startswith(checks.LIVE_KEYS)
    if is_live and values.get("notifications_allow_private") == "on":
        yield "NOTIFICATIONS_ALLOW_PRIVATE: on is refused beside a live key of Stripe"
    smallest = {**DEFAULT_MINIMUMS_MINOR, **values.get("amount_minimums", {})}
    for currency, largest in values.get("amount_maximums", {}).items():
        if largest < smallest.get(currency, 1):
            yield f"AMOUNT_MAXIMUMS: that of {currency} is below its smallest amount, {smallest[currency]}"
    if values.get("auth") != "optional":
        return
    if values.get("host", "127.0.0.1") not in checks.LOOPBACK_HOSTS:
        yield f"AUTH: optional is only for a HOST that is one of {', '.join(checks.LOOPBACK_HOSTS)}"
    if is_live:
        yield "STRIPE_SECRET_KEY: a live key is refused unless AUTH is required; use sk_test_..."


def settings_table() -> list[tuple[str, str, str]]:
    """Name, default and meaning of every setting, for the documentation."""
    rows = []
    for each in fields(Settings):
        default = each.metadata["default"]
        name = each.name.upper() + (" (or _FILE)" if each.metadata["secret"] else "")
        shown = "must be set" if default is MISSING else "" if default is None else str(default)
        rows.append((name, shown, each.metadata["help"]))
    return rows
