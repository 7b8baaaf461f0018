"""A shop whose payments are told of by webhook: API, worker and courier in the test's own process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import pytest

from payment_worker import courier, deliveries
from payment_worker.courier import Courier, make_courier
from shared.settings import Settings
from tests.api import JSON, Answer, Api, api_settings
from tests.factories import as_json
from tests.shop import Shop
from tests.waiting import wait_until
from tests.worker import make_bench

PATH: Final = "/notification-endpoints"
LONG_S: Final = 60
NOT_BY_ITSELF_S: Final = 3600.0  # the pause before a next attempt, which a test ends when it wants to
NOTHING_DUE: Final = "every due delivery to be made"


class Notified(Shop):
    """The shop, and the courier that carries its news."""

    courier: Courier

    def subscribe(self, url: str, **body: Any) -> dict[str, Any]:
        """Register an endpoint; return it with its secret."""
        answer = self.api.post({"url": url, **body}, path=PATH)
        assert answer.status == 201, answer.text
        made: dict[str, Any] = {**answer.body["endpoint"], "secret": answer.body["secret"]}
        return made

    def patch(self, endpoint: dict[str, Any], **body: Any) -> Answer:
        """Change an endpoint."""
        path = f"{PATH}/{endpoint['id']}"
        return self.api.send("PATCH", path, as_json(body), {"Content-Type": JSON})

    def endpoint(self, endpoint: dict[str, Any]) -> dict[str, Any]:
        """The endpoint as it is shown now."""
        shown: dict[str, Any] = self.api.get(f"{PATH}/{endpoint['id']}").body["endpoint"]
        return shown

    def deliveries(self, endpoint: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
        """What is shown of an endpoint's deliveries, oldest event first."""
        answer = self.api.get(f"{PATH}/{endpoint['id']}/deliveries{query}")
        assert answer.status == 200, answer.text
        listed: list[dict[str, Any]] = answer.body["deliveries"]
        return listed[::-1]

    def notify(self) -> None:
        """Let the courier make its turns until nothing is due any more."""

        def all_made() -> bool:
            self.courier.turn()
            return not self.courier._running and not self._due()

        wait_until(all_made, LONG_S, NOTHING_DUE)

    def notify_later(self) -> None:
        """The same, when the pauses before the next attempts are over."""
        self.make_due()
        self.notify()

    def make_due(self) -> None:
        """Let the pauses before the next attempts be over."""
        self.api.stored.change(
            "UPDATE notification_delivery SET next_attempt_at = now() WHERE state = 'pending'"
        )

    def _due(self) -> bool:
        return bool(deliveries.receivers(self.bench.sessions, order_service=True))


@contextmanager
def make_notified(settings: Settings, **variables: Any) -> Iterator[Notified]:
    """Set all up on one database, with private addresses allowed and other settings as given.

    No delivery is tried again before `notify_later` asks for it, however slow the machine is.
    """
    variables = {"NOTIFICATIONS_ALLOW_PRIVATE": "on", **variables}
    given = {"STRIPE_API_URL": settings.stripe_api_url, "STRIPE_SECRET_KEY": settings.stripe_secret_key}
    api = Api(api_settings(settings.database_url, settings.redis_url, **given, **variables))
    changed = {name.lower(): value for name, value in variables.items()}
    known = {name: value for name, value in changed.items() if hasattr(settings, name)}
    with pytest.MonkeyPatch.context() as patch, make_bench(replace(settings, **known)) as bench:
        patch.setattr(courier, "FIRST_RETRY_S", NOT_BY_ITSELF_S)
        shop = Notified(api, bench)
        shop.courier = make_courier(bench.sessions, bench.settings)
        try:
            yield shop
        finally:
            shop.courier.finish()
            api.close()
