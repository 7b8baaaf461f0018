"""The connections: what the code relies on of the driver and the pool."""

from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from shared.database import alone, connect, make_sessions, reading, reason_of
from shared.models import Payment
from shared.settings import Settings

UNTIL_PREPARED = 10  # the driver prepares a statement once it has been sent a few times
PREPARED = text("SELECT count(*) FROM pg_prepared_statements")


def test_a_read_leaves_the_prepared_statements(settings: Settings) -> None:
    """Statements that a connection has prepared stay so when something has only been read on it."""
    engine = connect(settings.database_url, pool_size=1, application="test database")
    sessions = make_sessions(engine)
    try:
        for _ in range(UNTIL_PREPARED):
            with alone(sessions) as connection:
                connection.execute(select(Payment.id))
        with reading(sessions) as session:
            session.scalar(select(func.count()).select_from(Payment))
        with alone(sessions) as connection:
            assert connection.scalar(PREPARED) == 1
    finally:
        engine.dispose()


def engine_on(url: str) -> Engine:
    """Return an engine that is used by one test."""
    return connect(url, pool_size=1, application="test database")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "hidden-word"}, "password authentication failed for user"),
        ({"port": "9"}, "refused"),
        ({"path": "/no_such_place"}, 'database "no_such_place" does not exist'),
    ],
    ids=["wrong password", "nobody listens", "no such database"],
)
def test_a_log_tells_a_wrong_setting_from_an_outage(
    settings: Settings, change: dict[str, str], says: str
) -> None:
    """One line says what is the matter, and shows no password."""
    url = urlsplit(settings.database_url)
    given = {"user": url.username, "password": url.password, "port": url.port, "path": url.path} | change
    wrong = "postgresql://{user}:{password}@127.0.0.1:{port}{path}".format(**given)
    with pytest.raises(SQLAlchemyError) as raised:
        engine_on(wrong).connect()
    reason = reason_of(raised.value)
    assert says in reason
    assert "\n" not in reason
    assert str(given["password"]) not in reason


def test_a_log_quotes_no_values(settings: Settings) -> None:
    """Of an error that is no outage only its class is told; of a statement that took too long, why."""
    engine = engine_on(settings.database_url)
    try:
        with engine.connect() as connection:
            with pytest.raises(SQLAlchemyError) as raised:
                connection.execute(text("SELECT 'secret'::integer"))
            assert reason_of(raised.value) == "DataError"
            connection.rollback()
            connection.execute(text("SET statement_timeout = 1"))
            with pytest.raises(SQLAlchemyError) as raised:
                connection.execute(text("SELECT 'secret', pg_sleep(60)"))
            assert reason_of(raised.value) == "canceling statement due to statement timeout"
    finally:
        engine.dispose()
