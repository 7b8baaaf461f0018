"""Connections to PostgreSQL; `with sessions.begin() as session:` is the unit of work."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

import uuid_utils
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy import Connection, Engine, ExceptionContext, Select, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from shared.documents import parse_json, render_json
from shared.sealed import use_sealer
from shared.sealing import Sealer

Sessions = sessionmaker[Session]

CONNECT_TIMEOUT_S = 3
PING_AFTER_IDLE_S = 1.0
ASK_TIME_EVERY_S = 60.0
ID_CLOCKS_S = 3600
POOL_TIMEOUT_S = 2  # a request that cannot get a connection by then is better told to come back
# The server ends what a client forgot: nothing here legitimately takes longer.
SERVER_TIMEOUTS_MS = {
    "statement_timeout": 10_000,
    "lock_timeout": 5_000,
    "idle_in_transaction_session_timeout": 15_000,
}
# What says "the database is away or busy, come back", and never "your data is wrong".
DATABASE_DOWN = (OperationalError, PoolTimeout)


def connect(database_url: str, *, pool_size: int, application: str, sealer: Sealer | None = None) -> Engine:
    """Make the process's one engine. It opens no connection until the first use.

    Without a sealer nothing can be written that has to be sealed.
    """
    options = " ".join(f"-c {name}={value}" for name, value in SERVER_TIMEOUTS_MS.items())
    engine = create_engine(
        driver_url(database_url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        hide_parameters=True,  # they would stand in error messages, and so in logs
        json_serializer=render_json,
        json_deserializer=parse_json,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            # A server that vanished without a word is noticed within half a minute.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            # Keepalives say nothing while what was sent is not acknowledged: the kernel would go on sending
            # for a quarter of an hour. (ms; of no effect on Unix sockets and where the system has none.)
            "tcp_user_timeout": 25_000,
            "application_name": application,
            "options": options,
        },
    )
    _ping_when_idle(engine)
    leave_when_read_only(engine)
    if sealer:
        use_sealer(engine, sealer)
    return engine


def connections_in_use(engine: Engine) -> int:
    """How many connections of the pool somebody holds at this moment."""
    return engine.pool.checkedout() if isinstance(engine.pool, QueuePool) else 0


def _ping_when_idle(engine: Engine) -> None:
    """Look that a connection lives before it is used, but only one that has lain idle.

    A ping before every use would be one more round trip in each transaction; a connection that was used a
    moment ago tells by itself when it is dead, and takes the others of the pool with it.
    """

    @event.listens_for(engine, "checkin")
    def _note(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _ping(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        idle_s = time.monotonic() - record.info.get("used_at", time.monotonic())
        if idle_s < PING_AFTER_IDLE_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.dbapi.Error as error:  # type: ignore[union-attr]
            raise DisconnectionError from error


def leave_when_read_only(engine: Engine) -> None:
    """Take a server that only reads for one that is away: it has failed over, or stands by for another.

    Its connections are given up, all of the pool's, for a new one may lead to the server that writes.
    """

    @event.listens_for(engine, "handle_error")
    def _leave(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, ReadOnlySqlTransaction):
            context.is_disconnect = True


def driver_url(database_url: str) -> str:
    """Turn a libpq URL into SQLAlchemy's, for psycopg 3."""
    url = make_url(database_url.replace("postgres://", "postgresql://", 1))
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def make_sessions(engine: Engine) -> Sessions:
    """Sessions on this engine; objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def alone(sessions: Sessions) -> Iterator[Connection]:
    """A connection on which every statement is a transaction of its own, for those who send only one."""
    engine: Engine = sessions.kw["bind"]
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def reading(sessions: Sessions) -> Iterator[Session]:
    """A session that only reads: each statement is a transaction of its own.

    A session that is closed without a commit ends its transaction with a rollback, upon which the driver
    forgets all statements that it has prepared on the connection, everybody's.
    """
    with alone(sessions) as connection, Session(connection) as session:
        yield session


def database_now(connection: Connection) -> datetime:
    """The database's time, which all hosts share; asked for once a minute and counted on from there.

    A host's own clock may be wrong by hours, and what is looked for at the gateway depends on times.
    """
    engine = connection.engine
    at, at_s = _times.get(engine, (None, 0.0))
    if at is None or time.monotonic() - at_s > ASK_TIME_EVERY_S:
        at, at_s = connection.scalar(select(func.clock_timestamp())), time.monotonic()
        _times[engine] = (at, at_s)
    now: datetime = at + timedelta(seconds=time.monotonic() - at_s)
    return now


_times: WeakKeyDictionary[Engine, tuple[Any, float]] = WeakKeyDictionary()


def is_database_down(error: BaseException) -> bool:
    """Whether an error means that the database cannot be reached now, so that trying again may help.

    One that only reads is told from the others when its connection is given up.
    """
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, DATABASE_DOWN)


def reason_of(error: BaseException) -> str:
    """Why the database cannot be used, in a line for the logs.

    That is the first line of what the driver says, which names server and user and no password. Of an error
    that is no outage it is the class alone: its text may quote values.
    """
    said = str(getattr(error, "orig", None) or error) if is_database_down(error) else ""
    return said.strip().partition("\n")[0] or type(error).__name__


def new_id() -> uuid.UUID:
    """A UUIDv7: unique, and in order of time."""
    return uuid.UUID(bytes=uuid_utils.uuid7().bytes)


def first_id_of(moment: datetime) -> uuid.UUID:
    """An id that is smaller than every one made since then, on hosts whose clocks are right to an hour."""
    milliseconds = int((moment.timestamp() - ID_CLOCKS_S) * 1000)
    return uuid.UUID(int=max(0, min(milliseconds, 2**48 - 1)) << 80)


def try_lock(session: Session, *names: str) -> bool:
    """Take the advisory lock of this name until the transaction ends; False if another holds it."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_lock_number(*names)))))


def lock(session: Session, *names: str) -> None:
    """Take the advisory lock of this name until the transaction ends; wait while another holds it."""
    session.execute(select(func.pg_advisory_xact_lock(_lock_number(*names))))


def _lock_number(*names: str) -> Select[tuple[int]]:
    return select(func.hashtextextended("\x1f".join(names), 0)).scalar_subquery()  # type: ignore[return-value]
