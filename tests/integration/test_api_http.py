"""What HTTP itself asks for: media types, sizes, methods, and ids that follow a request through."""

import http.client
import socket
import uuid
from urllib.parse import urlsplit

import pytest

from tests.api import JSON, Answer, Api, ServedApi, assert_refused
from tests.factories import as_json, new_uuid, payment_body

LIMIT_BYTES = 64 * 1024
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"  # the example of W3C Trace Context
CHUNK_BYTES = 4096


def padded(size: int) -> str:
    """Return a valid body of exactly `size` bytes: white space counts like everything else."""
    body = as_json(payment_body())
    return body + " " * (size - len(body))


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                   "application/xml", "application/jsonp", "json", ""],
)  # fmt: skip
def test_another_media_type_is_refused(shared_api: Api, media_type: str) -> None:
    """Only JSON is read, and only what says that it is JSON."""
    before = shared_api.stored.counts()
    answer = shared_api.post_async(Content_Type=media_type)
    assert_refused(answer, 415, "UNSUPPORTED_MEDIA_TYPE", "application/json")
    assert shared_api.stored.counts() == before


@pytest.mark.parametrize(
    "media_type", [JSON, f"{JSON}; charset=utf-8", "Application/JSON", "application/json;v=1"]
)
def test_json_may_carry_parameters(shared_api: Api, media_type: str) -> None:
    """Parameters and case of the media type change nothing."""
    assert shared_api.post_async(Content_Type=media_type).status == 202


def test_the_largest_body_is_taken(shared_api: Api) -> None:
    """Exactly 64 KiB are still read."""
    assert shared_api.post_async(padded(LIMIT_BYTES)).status == 202


@pytest.mark.parametrize("size", [LIMIT_BYTES + 1, 10 * LIMIT_BYTES])
def test_a_larger_body_is_refused(shared_api: Api, size: int) -> None:
    """One byte more is refused by its announced length."""
    before = shared_api.stored.counts()
    assert_refused(shared_api.post_async(padded(size)), 413, "PAYLOAD_TOO_LARGE", "64 KiB")
    assert shared_api.stored.counts() == before


def chunked(api: ServedApi, body: str) -> Answer:
    """POST a body in chunks, so that no header says how long it is."""
    pieces = [body[start : start + CHUNK_BYTES].encode() for start in range(0, len(body), CHUNK_BYTES)]
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=60)
    headers = {"Content-Type": JSON, "Transfer-Encoding": "chunked", "Prefer": "respond-async"}
    try:
        connection.request("POST", "/payments", iter(pieces), headers, encode_chunked=True)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.headers), answer.read().decode())
    finally:
        connection.close()


def test_a_chunked_body_is_read(served_api: ServedApi) -> None:
    """A client need not know the length of what it sends."""
    assert chunked(served_api, padded(LIMIT_BYTES)).status == 202


def test_a_larger_chunked_body_is_refused(served_api: ServedApi) -> None:
    """Nor does leaving the length out get more past the limit."""
    before = served_api.stored.counts()
    assert_refused(chunked(served_api, padded(LIMIT_BYTES + 1)), 413, "PAYLOAD_TOO_LARGE", "64 KiB")
    assert_refused(chunked(served_api, padded(3 * LIMIT_BYTES)), 413, "PAYLOAD_TOO_LARGE", "64 KiB")
    assert served_api.stored.counts() == before


def test_a_body_that_never_ends_harms_nobody(served_api: ServedApi) -> None:
    """A client that hangs up before all it has announced leaves nothing behind, and the next is served."""
    before = served_api.stored.counts()
    address = urlsplit(served_api.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        head = f"POST /payments HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: 500\r\n\r\n"
        connection.sendall(head.encode() + as_json(payment_body()).encode())
    assert served_api.get("/healthz").status == 200
    assert served_api.stored.counts() == before


@pytest.mark.parametrize(
    "path",
    ["/", "/payment", "/payments/", "/Payments", "/payments/1/2/3", "/%00", "/%ED%A0%80",
     "/docs/assets/no.js", "/docs/assets/..%2f..%2f__init__.py"],
)  # fmt: skip
def test_an_unknown_route_is_told_in_the_envelope(shared_api: Api, path: str) -> None:
    """Whoever has the address wrong still gets an answer of the same form."""
    assert_refused(shared_api.get(path), 404, "NOT_FOUND")


def test_an_unknown_route_is_unknown_for_commands_too(shared_api: Api) -> None:
    """A command to a wrong address is told so, and not that its body is wrong."""
    assert_refused(shared_api.post("", path="/payment"), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/payments", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("PUT", f"/payments/{new_uuid()}", {"GET", "HEAD", "OPTIONS"}),
        ("PATCH", f"/payments/{new_uuid()}", {"GET", "HEAD", "OPTIONS"}),
        ("POST", f"/payments/{new_uuid()}/timeline", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("BREW", "/payments", {"GET", "HEAD", "OPTIONS", "POST"}),
    ],
)
def test_another_method_is_refused(shared_api: Api, method: str, path: str, allowed: set[str]) -> None:
    """The Allow header says what the route does take (RFC 9110, section 15.5.6)."""
    answer = shared_api.send(method, path, "", {})
    assert_refused(answer, 405, "METHOD_NOT_ALLOWED")
    assert set(answer.headers["Allow"].split(", ")) == allowed


def test_options_tells_the_methods(shared_api: Api) -> None:
    """OPTIONS is answered for every route and does nothing."""
    before = shared_api.stored.counts()
    answer = shared_api.send("OPTIONS", "/payments", "", {})
    assert answer.status == 200
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    assert shared_api.stored.counts() == before


@pytest.mark.parametrize(
    "path", ["/payments", "/healthz", "/readyz", "/openapi.json", "/docs", "/payments/x"]
)
def test_head_is_get_without_the_body(served_api: ServedApi, path: str) -> None:
    """Status and type are those of GET; no byte of a body follows."""
    head, get = served_api.send("HEAD", path, b"", {}), served_api.get(path)
    assert (head.status, head.headers["Content-Type"]) == (get.status, get.headers["Content-Type"])
    assert head.text == ""
    assert get.text != ""


def test_a_correlation_id_is_taken(shared_api: Api) -> None:
    """The caller's id comes back, and is on what the request has made."""
    given = f"order-77/{new_uuid()}"
    answer = shared_api.post_async(X_Correlation_Id=given)
    assert answer.headers["X-Correlation-Id"] == given
    assert operation_of(shared_api, answer)["correlation_id"] == given
    (entry,) = shared_api.get(f"/payments/{answer.payment['id']}/timeline").body["timeline"]
    assert entry["correlationId"] == given
    assert shared_api.get("/nowhere", X_Correlation_Id=given).headers["X-Correlation-Id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", "tab\there", "caf\u00e9", "4242424242424242"])
def test_an_unusable_correlation_id_is_replaced(shared_api: Api, given: str) -> None:
    """What is too long or not visible ASCII goes into no log: a new id takes its place."""
    answer = shared_api.post_async(X_Correlation_Id=given)
    made = answer.headers["X-Correlation-Id"]
    assert answer.status == 202
    assert uuid.UUID(made).version == 7
    assert operation_of(shared_api, answer)["correlation_id"] == made


def test_every_request_gets_a_correlation_id_of_its_own(shared_api: Api) -> None:
    """Without one from the caller each request is given a new one."""
    made = {shared_api.get("/healthz").headers["X-Correlation-Id"] for _ in range(3)}
    assert len(made) == 3
    assert all(uuid.UUID(each).version == 7 for each in made)
    longest = "x" * 128
    assert shared_api.get("/healthz", X_Correlation_Id=longest).headers["X-Correlation-Id"] == longest


def test_a_trace_is_continued(shared_api: Api) -> None:
    """The caller's traceparent goes with the operation and its event."""
    answer = shared_api.post_async(traceparent=TRACEPARENT)
    assert operation_of(shared_api, answer)["traceparent"] == TRACEPARENT
    (event,) = (
        row for row in shared_api.stored.rows("outbox") if str(row["aggregateid"]) == answer.payment["id"]
    )
    assert event["traceparent"] == TRACEPARENT
    assert event["correlation_id"] == answer.headers["X-Correlation-Id"]


@pytest.mark.parametrize(
    "given",
    [
        "", "nonsense", TRACEPARENT.upper(), TRACEPARENT[:-1], TRACEPARENT + "0",
        TRACEPARENT.replace("-", "_"),
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "ff" + TRACEPARENT[2:],
    ],
)  # fmt: skip
def test_an_invalid_trace_is_not_continued(shared_api: Api, given: str) -> None:
    """W3C Trace Context: what cannot be parsed, and ids of zeros alone, are ignored; the payment goes on."""
    answer = shared_api.post_async(traceparent=given)
    assert answer.status == 202
    assert operation_of(shared_api, answer)["traceparent"] is None


def operation_of(api: Api, answer: Answer) -> dict[str, object]:
    """Return the stored operation of the payment in an answer."""
    (row,) = (row for row in api.stored.rows("operation") if str(row["payment_id"]) == answer.payment["id"])
    return row
