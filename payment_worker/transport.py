"""Celery's Redis transport with one client a channel, where the original makes one for each message."""

from typing import Any

import redis
from kombu.transport import redis as original


class Channel(original.Channel):
    """Making a client costs more CPU than the acknowledgement that it is made for; clients may be shared."""

    _kept: redis.Redis | None = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - as in the original
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        if self._kept is None:
            self._kept = super()._create_client()  # type: ignore[no-untyped-call]
        return self._kept


class Transport(original.Transport):
    """The same transport with the lighter channel."""

    Channel = Channel
