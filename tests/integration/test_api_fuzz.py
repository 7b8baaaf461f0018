"""Every route of the OpenAPI document, asked for what it may take and for what it may not."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from payment_api.app import create_app
from payment_api.services import make_services
from shared.settings import Settings
from tests.api import Api, api_settings
from tests.conftest import Servers
from tests.shop import Shop
from tests.worker import make_bench

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "8"))  # of each kind, for each route; `make fuzz`: 500
METHODS: Final = ("get", "post", "put", "patch", "delete")
CHECKS: Final = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


def routes() -> list[str]:
    """Return every route of the document, as METHOD and path."""
    nowhere = Settings(database_url="postgresql://nowhere/none", redis_url="redis://nowhere")
    document = create_app(make_services(nowhere)).test_client().get("/openapi.json").get_json()
    paths = document["paths"].items()
    return [f"{method.upper()} {path}" for path, each in paths for method in METHODS if method in each]


class Fuzzed:
    """An API with payments of every kind, its document, and the ids that a stranger could not guess."""

    def __init__(self, api: Api) -> None:
        """Read the document as a client does."""
        self.api = api
        # The same requests each time: nothing learned from answers or read from the source.
        config = SchemathesisConfig.from_dict({"analysis": {"constants": {"enabled": False}}})
        document = json.loads(api.app.test_client().get("/openapi.json").get_data())  # with floats
        for operations in document["paths"].values():
            for operation in operations.values():
                # Nobody has to say here who asks; tokens have tests of their own.
                if isinstance(operation, dict):
                    operation.pop("security", None)
        self.schema = schemathesis.openapi.from_dict(document, config=config)
        self.schema.app = api.app
        self.ids: dict[str, list[str]] = {}


@pytest.fixture(scope="module")
def fuzzed(servers: Servers, session_database_url: str, session_redis_url: str) -> Iterator[Fuzzed]:
    """Return an API with a gateway, where nobody waits for an outcome that no worker brings about."""
    given = {
        "STRIPE_API_URL": servers.stripe_api_url,
        "STRIPE_SECRET_KEY": "sk_test_" + "f" * 24,
        "STRIPE_WEBHOOK_SECRET": "whsec_" + "f" * 24,
        "JWT_SECRET": "f" * 32,
        "WAIT_SLOTS": 0,
    }
    settings = api_settings(session_database_url, session_redis_url, **given)
    fuzzed = Fuzzed(Api(settings))
    with make_bench(settings) as bench:
        shop = Shop(fuzzed.api, bench)
        paid = shop.pay()
        refund = shop.ask(paid, "refunds", {"amount": 10}).body["refund"]["id"]
        shop.work()
        fuzzed.ids["payment_id"] = [paid, shop.hold(), shop.start(), shop.hold_cart()]
        fuzzed.ids["refund_id"] = [refund]
        yield fuzzed
    fuzzed.api.close()


def ask(fuzzed: Fuzzed, route: str, mode: GenerationMode, **known: Any) -> None:
    """Send examples of one kind to a route and hold each answer against the document."""
    method, path = route.split()
    operation = fuzzed.schema[path][method]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case[Any]) -> None:
        if known:
            case.path_parameters = {**case.path_parameters, **known}
        case.call_and_validate(checks=CHECKS)

    send()


@pytest.mark.parametrize("route", routes())
def test_answers_are_what_the_document_says(fuzzed: Fuzzed, route: str) -> None:
    """No 5xx; each answer has a status, headers and a body of the document; what it forbids is refused."""
    ask(fuzzed, route, GenerationMode.POSITIVE)
    with suppress(Unsatisfiable):  # of a path, and nothing else, every text is acceptable
        ask(fuzzed, route, GenerationMode.NEGATIVE)
    for name, ids in fuzzed.ids.items():
        for each in ids if f"{{{name}}}" in route else ():
            ask(fuzzed, route, GenerationMode.POSITIVE, **{name: each})
