"""The headers that keep browsers from misusing an answer: on every answer, errors included."""

import base64
import hashlib
import re

import pytest

from tests.api import Api, ServedApi
from tests.factories import new_uuid
from tests.integration.conftest import NewApi
from tests.tokens import SECRET, bearer

PATHS = [
    "/payments", f"/payments/{new_uuid()}", "/payment/customer/a@b.example", "/nowhere", "/payments?limit=0",
    "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/assets/swagger-ui.css",
    "/docs/assets/none.js", "/webhooks/stripe",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_every_answer_is_protected(closed: Api, path: str, method: str) -> None:
    """Nothing may be sniffed, framed or run, no address is passed on, and no answer of the API is kept."""
    for headers in ({}, bearer("x"), {"Authorization": "Bearer x"}):
        answer = closed.send(method, path, "", headers)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        policy = answer.headers["Content-Security-Policy"]
        assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
        kept = method == "GET" and path.startswith("/docs/assets/swagger")
        assert ("no-store" in answer.headers["Cache-Control"]) is not kept
        assert "Strict-Transport-Security" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_page_runs_its_own_scripts_only(shared_api: Api) -> None:
    """Those that it loads from here and those that stand in it, each by its digest; none by trust."""
    page = shared_api.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    (scripts,) = [each for each in policy.split("; ") if each.startswith("script-src")]
    inline = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in inline]
    assert inline
    assert scripts == " ".join(["script-src 'self'", *(f"'sha256-{each}'" for each in digests)])
    assert not re.search(r"\son\w+=|javascript:", page.text)


@pytest.mark.parametrize(
    ("proxies", "headers", "secure", "address"),
    [
        (0, {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}, False, "127.0.0.1"),
        (1, {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}, True, "203.0.113.9"),
        (1, {"X-Forwarded-Proto": "http", "X-Forwarded-For": "192.0.2.1, 203.0.113.9"}, False, "203.0.113.9"),
        (2, {"X-Forwarded-For": "192.0.2.1, 203.0.113.9"}, False, "192.0.2.1"),
        (2, {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}, False, "127.0.0.1"),
    ],
)  # fmt: skip
def test_only_trusted_proxies_are_believed(
    new_api: NewApi,
    proxies: int,
    headers: dict[str, str],
    secure: bool,  # noqa: FBT001 - a column of the table
    address: str,
) -> None:
    """Who the client is and whether it speaks TLS; what is claimed beyond their number is not looked at."""
    api = new_api(AUTH="required", JWT_SECRET=SECRET, TRUSTED_PROXIES=proxies)
    answer = api.post_async("{}", **bearer("ada", role="operator"), **headers)
    assert ("Strict-Transport-Security" in answer.headers) is secure
    assert [row["came_from"] for row in api.stored.rows("audit_entry")] == [address]


def test_the_server_believes_nobody_either(served_api: ServedApi) -> None:
    """A client on loopback cannot talk gunicorn into TLS."""
    for name in ("X-Forwarded-Proto", "X-Forwarded-Protocol"):
        answer = served_api.send("GET", "/payments", b"", {name: "https", "X-Forwarded-Ssl": "on"})
        assert answer.status == 200
        assert "Strict-Transport-Security" not in answer.headers
