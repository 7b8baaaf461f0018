"""Speak HTTP to a Payment API from a test, look at what it has stored, and settle its payments."""

import signal
import subprocess
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any

import psycopg
import pytest
import requests
from psycopg import sql
from psycopg.rows import dict_row
from requests.structures import CaseInsensitiveDict

from deploy.local.client import without_settings
from deploy.local.parts import program
from deploy.local.ports import any_free
from payment_api.app import create_app
from payment_api.services import make_services
from payment_worker.gate import make_gate
from payment_worker.leases import Leases
from payment_worker.processing import Worker
from shared.database import connect, make_sessions
from shared.documents import parse_json
from shared.gateways.stripe import StripeGateway
from shared.models import Table
from shared.sealing import Sealer
from shared.settings import API_NEEDS, Settings, load_settings
from shared.wakeup import Announcer, connect_redis
from tests.factories import as_json, payment_body
from tests.keys import DATA_KEY
from tests.waiting import LONGEST_S, wait_until

JSON = "application/json"
CALL_S = 120
SOON_S = 30
LONGEST_MESSAGE = 300
NOWHERE = "http://127.0.0.1:9"  # nothing listens there: an API that accepts has not called its gateway


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, its JSON read with exact decimals."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> Any:
        """The parsed JSON."""
        return parse_json(self.text)

    @property
    def payment(self) -> Any:
        """The payment in the envelope."""
        return self.body["payment"]


def api_settings(database_url: str, redis_url: str, **variables: Any) -> Settings:
    """Return an API's settings from these variables and nothing else: no Kafka and no Stripe key at all.

    Nobody has to say who asks, unless AUTH is given.
    """
    ours = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "AUTH": "optional", "DATA_KEY": DATA_KEY}
    given = {**ours, **variables}
    with pytest.MonkeyPatch.context() as patch:
        for each in fields(Settings):
            patch.delenv(each.name.upper(), raising=False)
        for name, value in given.items():
            patch.setenv(name, str(value))
        return load_settings(API_NEEDS)


def assert_refused(answer: Answer, status: int, code: str, field: str = "") -> None:
    """Hold an answer against the contract's envelope for refusals; `field` is what its message must name."""
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"] == JSON
    assert answer.headers["X-Correlation-Id"]
    assert set(answer.body) == {"success", "errorMessage", "errorCode", "payment"}
    assert answer.body["success"] is False
    assert answer.body["payment"] is None
    assert answer.body["errorCode"] == code
    assert field in answer.body["errorMessage"]
    assert len(answer.body["errorMessage"]) < LONGEST_MESSAGE


class Client:
    """The requests that tests make, whatever carries them."""

    def send(self, method: str, path: str, body: str | bytes, headers: dict[str, str]) -> Answer:
        """Carry one request."""
        raise NotImplementedError

    def post(self, body: Any = None, *, path: str = "/payments", **headers: str) -> Answer:
        """POST a body, a dict or raw; a fresh valid one by default. Header names have _ for -."""
        body = payment_body() if body is None else body
        sent = body if isinstance(body, str | bytes) else as_json(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send("POST", path, sent, {"Content-Type": JSON, **named})

    def post_async(self, body: Any = None, **headers: str) -> Answer:
        """POST a body without waiting for its outcome."""
        return self.post(body, Prefer="respond-async", **headers)

    def get(self, path: str, **headers: str) -> Answer:
        """GET a path."""
        return self.send("GET", path, b"", {name.replace("_", "-"): value for name, value in headers.items()})


class Stored:
    """What a service has written into one database."""

    def __init__(self, database_url: str) -> None:
        """Look into this database."""
        self.database_url = database_url

    def counts(self) -> dict[str, int]:
        """Return the number of rows of every table that has some."""
        counted = [
            sql.SQL("SELECT {} AS name, count(*) FROM {}").format(sql.Literal(name), sql.Identifier(name))
            for name in Table.metadata.tables
        ]
        rows = self._execute(sql.SQL(" UNION ALL ").join(counted))
        return {row["name"]: row["count"] for row in rows if row["count"]}

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return all rows of a table."""
        return self._execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))

    def change(self, statement: str, *values: Any) -> None:
        """Change rows behind the service's back."""
        self._execute(statement, values)

    def _execute(self, statement: str | sql.Composed, values: Any = ()) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url, row_factory=dict_row) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


class Api(Client):
    """A Payment API within this process, without a web server."""

    def __init__(self, settings: Settings) -> None:
        """Make the application."""
        self.services = make_services(settings)
        self.app = create_app(self.services)
        self.stored = Stored(settings.database_url)

    @property
    def pool(self) -> Any:
        """The connection pool."""
        return self.services.sessions.kw["bind"].pool

    def send(self, method: str, path: str, body: str | bytes, headers: dict[str, str]) -> Answer:
        """Carry one request through Flask's test client."""
        sent = self.app.test_client().open(path, method=method, data=body, headers=headers)
        with closing(sent) as answer:
            named = CaseInsensitiveDict(answer.headers)
            return Answer(answer.status_code, named, answer.get_data(as_text=True))

    def close(self) -> None:
        """Close all connections."""
        self.services.waiting._listener.stop()
        self.services.sessions.kw["bind"].dispose()
        self.services.redis.connection_pool.disconnect(inuse_connections=False)


class ServedApi(Client):
    """`payment-api serve` as a process of its own."""

    def __init__(self, database_url: str, redis_url: str, **variables: Any) -> None:
        """Start it on a free port and return once it answers."""
        self._port = any_free()
        self.url = f"http://127.0.0.1:{self._port.number}"
        self.stored = Stored(database_url)
        ours = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "AUTH": "optional",
            "DATA_KEY": DATA_KEY,
        }
        given: dict[str, Any] = {**ours, "PORT": self._port.number, **variables}
        self._port.hand_over()
        self.process = subprocess.Popen(
            [program("payment-api"), "serve"],
            env=without_settings() | {name: str(value) for name, value in given.items()},
        )
        try:
            wait_until(self._answers, SOON_S, "the API to answer")
        except BaseException:
            self.process.kill()
            raise

    def send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        """Carry one request over a connection of its own."""
        answer = requests.request(method, self.url + path, data=body, headers=headers, timeout=CALL_S)
        return Answer(answer.status_code, answer.headers, answer.text)

    def close(self) -> None:
        """Stop it gracefully."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(LONGEST_S)
        self._port.close()
        assert status == 0

    def _answers(self) -> bool:
        assert self.process.poll() is None, "payment-api serve has ended"
        try:
            return requests.get(f"{self.url}/healthz", timeout=CALL_S).ok
        except requests.ConnectionError:
            return False


class Settler:
    """The Payment Worker's own code, carrying out one operation at a time within this process."""

    def __init__(self, settings: Settings) -> None:
        """Work on this database, with this gateway, publishing changes to this Redis."""
        self._engine = connect(
            settings.database_url, pool_size=4, application="test worker", sealer=Sealer.of(settings)
        )
        self._redis = connect_redis(settings.redis_url)
        sessions = make_sessions(self._engine)
        self._worker = Worker(
            sessions=sessions,
            gateway=StripeGateway(settings.stripe_secret_key, settings.stripe_api_url),
            gate=make_gate(sessions, settings),
            leases=Leases(sessions, settings.lease_s),
            lease_s=settings.lease_s,
            announce_change=Announcer(self._redis),
        )
        self._stored = Stored(settings.database_url)

    def settle(self, order_id: str) -> None:
        """Wait until the order's charge is asked for, and carry it out."""

        def asked() -> list[uuid.UUID]:
            payments = {row["id"] for row in self._stored.rows("payment") if row["order_id"] == order_id}
            return [
                row["id"]
                for row in self._stored.rows("operation")
                if row["payment_id"] in payments and row["state"] == "requested"
            ]

        self._worker.process(wait_until(asked, SOON_S, "the charge to be asked for")[0], 0)

    def pay(self, client: Client, body: dict[str, Any], **headers: str) -> Answer:
        """POST a payment and carry out its charge while the request waits; return the answer."""
        with ThreadPoolExecutor(1) as caller:
            answer = caller.submit(client.post, body, **headers)
            self.settle(body["orderId"])
            return answer.result(LONGEST_S)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        self._redis.close()
