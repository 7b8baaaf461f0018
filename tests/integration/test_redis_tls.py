"""Redis over TLS: certificates are checked by every client that we use, by default."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from kombu.exceptions import OperationalError

from payment_worker.queues import PAYMENTS_QUEUE, dispatch, make_celery
from shared.settings import Settings
from shared.wakeup import connect_redis
from tests.tls import tls_in_front_of


def test_celery_and_wake_ups_speak_tls_and_check_the_certificate(redis_url: str, tmp_path: Path) -> None:
    """With the authority both clients work; without it both refuse the server, and nothing is sent."""
    parts = urlsplit(redis_url)
    with tls_in_front_of(parts.port or 0, tmp_path) as (port, authority):
        # Two names of one server: Celery shares connections between addresses that are the same.
        plain = f"rediss://127.0.0.1:{port}{parts.path}"
        trusted = f"rediss://localhost:{port}{parts.path}?ssl_ca_certs={authority}"

        assert connect_redis(trusted).ping()
        dispatch(make_celery(Settings(redis_url=trusted)), [("an operation", 0, None)])
        assert connect_redis(redis_url).llen(PAYMENTS_QUEUE) == 1

        with pytest.raises(redis.ConnectionError):
            connect_redis(plain).ping()
        with pytest.raises(OperationalError):
            dispatch(make_celery(Settings(redis_url=plain)), [("an operation", 0, None)])
        assert connect_redis(redis_url).llen(PAYMENTS_QUEUE) == 1
