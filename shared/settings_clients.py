"""What only the client libraries can say of a setting; a process that does without one does not load it."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

# libpq itself looks at these only when it connects; the first is what it takes by default.
_CHOICES = {
    "sslmode": ("prefer", "disable", "allow", "require", "verify-ca", "verify-full"),
    "channel_binding": ("prefer", "disable", "require"),
    "gssencmode": ("prefer", "disable", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}


def refused_by_clients(needs: Collection[str], values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield setting and reason for what the library of a process that needs these would fail on later.

    Nothing is connected, and no reason holds a value.
    """
    checks: tuple[tuple[str, str, Callable[[Any], str | None]], ...] = (
        ("DATABASE_URL", "database_url", _why_not_libpq),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka_config", _why_not_librdkafka),
    )
    for needed, name, why_not in checks:
        if needed in needs and values.get(name) and (why := why_not(values[name])):
            yield name, why


def _why_not_libpq(database_url: str) -> str | None:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from sqlalchemy.engine import make_url

    from shared.database import driver_url

    try:
        conninfo_to_dict(database_url)
        # What libpq is told in the end: SQLAlchemy takes the URL apart by rules of its own.
        url = make_url(driver_url(database_url))
        _, arguments = url.get_dialect()().create_connect_args(url)
        given = dict(arguments)
        given.pop("context", None)
        make_conninfo(**given)
    except (ProgrammingError, ValueError):  # their texts may hold a piece of the password
        return "expected parameters that libpq knows, and %25 for a percent sign in the password"
    if "%" in (url.host or ""):
        return "expected a socket's folder as a parameter: postgresql://user@/name?host=/folder"
    names = [name for name, _ in parse_qsl(urlsplit(database_url).query) if name != "host"]
    if len(names) != len(set(names)):
        return "expected each parameter once"
    for name, allowed in _CHOICES.items():
        if (given.get(name) or allowed[0]) not in allowed:
            return f"expected {name} to be one of {', '.join(sorted(allowed))}"
    return None


def _why_not_librdkafka(properties: Mapping[str, str]) -> str | None:
    from shared.kafka import why_not

    return why_not(properties)
