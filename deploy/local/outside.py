"""Which parts are outside ones, by the settings in the environment, and what our processes are told."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SECRETS = (
    *("DATABASE_URL", "REDIS_URL", "KAFKA_CONFIG", "STRIPE_SECRET_KEY"),
    *("JWT_SECRET", "JWT_SECRET_PREVIOUS", "DATA_KEY", "DATA_KEY_PREVIOUS"),
)
NEIGHBOURS = ("NEIGHBOURS", "ORDER_SERVICE_URL", "RESERVATIONS", "INVENTORY_REFUNDS")
DECIDING = (*SECRETS, "KAFKA_BOOTSTRAP_SERVERS", "STRIPE_API_URL", "AUTH", *NEIGHBOURS)
SIMULATOR_KEY_PREFIX = "sk_test_"
LIVE_KEY_PREFIXES = ("sk_live_", "rk_live_")
DEFAULT_PORT = 5004
HIGHEST_PORT = 65_535
OF_A_BROKER = ("bootstrap.", "metadata.broker.", "security.", "sasl.", "ssl.")  # librdkafka properties


class BadSetting(Exception):
    """A setting cannot be used; the message names it and what is expected."""


@dataclass(frozen=True)
class Outside:
    """The given settings: a value means that the part is outside and is used as given."""

    database_url: str | None
    redis_url: str | None
    kafka_bootstrap_servers: str | None
    stripe_api_url: str | None
    stripe_secret_key: str | None

    @property
    def is_stripe(self) -> bool:
        """Whether charges go elsewhere than to the embedded simulator."""
        return self.stripe_secret_key is not None


def given(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """A setting by its name or by NAME_FILE; empty counts as not given. Raises BadSetting."""
    direct, path = environment.get(name), environment.get(f"{name}_FILE")
    if direct and path:
        message = f"{name} and {name}_FILE are both set; set one of them"
        raise BadSetting(message)
    if not path:
        return direct or None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except OSError as error:
        message = f"{name}_FILE: {path} cannot be read ({error.strerror})"
        raise BadSetting(message) from error


def outside_parts(environment: Mapping[str, str] = os.environ) -> Outside:
    """Read which parts are outside; raises BadSetting for combinations that cannot work or are unsafe."""
    kafka = given("KAFKA_BOOTSTRAP_SERVERS", environment)
    stripe_url, key = given("STRIPE_API_URL", environment), given("STRIPE_SECRET_KEY", environment)
    _check_kafka_config(given("KAFKA_CONFIG", environment), kafka)
    if stripe_url and not key:
        message = "STRIPE_API_URL is set without STRIPE_SECRET_KEY; set the key that this server accepts"
        raise BadSetting(message)
    if key and key.startswith(LIVE_KEY_PREFIXES) and environment.get("AUTH") != "required":
        message = "STRIPE_SECRET_KEY is a live key, which needs AUTH=required; or use sk_test_..."
        raise BadSetting(message)
    database, redis = given("DATABASE_URL", environment), given("REDIS_URL", environment)
    return Outside(database, redis, kafka, stripe_url and stripe_url.rstrip("/"), key)


def wanted_port(environment: Mapping[str, str] = os.environ) -> int | None:
    """PORT, 0 for any free one, or None when it is not set; raises BadSetting."""
    text = environment.get("PORT")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= HIGHEST_PORT):
        message = f"PORT is {text!r}, expected a number from 1 to {HIGHEST_PORT} (or 0 for any free port)"
        raise BadSetting(message)
    return int(text)


def service_environment(settings: Mapping[str, str], *, pretty: bool) -> dict[str, str]:
    """Our processes' environment: ours, without empty settings, plus what the stack decides."""
    environment = {name: value for name, value in os.environ.items() if value or name not in DECIDING}
    environment.setdefault("LOG_FORMAT", "pretty" if pretty else "json")
    environment.update(settings)
    return environment


def simulator_key() -> str:
    """A key for the simulator, which takes any test key."""
    return f"{SIMULATOR_KEY_PREFIX}{secrets.token_hex(12)}"


def _check_kafka_config(config: str | None, bootstrap_servers: str | None) -> None:
    if config is None:
        return
    try:
        properties = json.loads(config)
    except ValueError as error:
        message = f"KAFKA_CONFIG is not JSON ({error}), expected an object of librdkafka properties"
        raise BadSetting(message) from error
    if not isinstance(properties, dict):
        message = "KAFKA_CONFIG must be a JSON object of librdkafka properties"
        raise BadSetting(message)
    outside = [name for name in properties if name.startswith(OF_A_BROKER)]
    if outside and bootstrap_servers is None:
        message = f"KAFKA_CONFIG sets {outside[0]} without KAFKA_BOOTSTRAP_SERVERS; set the broker it is for"
        raise BadSetting(message)
