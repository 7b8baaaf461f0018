"""The connections: what the code relies on of the driver and the pool."""

from sqlalchemy import func, select, text

from shared.database import alone, connect, make_sessions, reading
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
