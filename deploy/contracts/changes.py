"""What a change of an OpenAPI or AsyncAPI document breaks for the clients of the one before."""

import re
from collections.abc import Iterator
from typing import Any, Final

from deploy.contracts.schemas import Comparison, resolve

Document = dict[str, Any]

_METHODS: Final = ("get", "put", "post", "delete", "patch", "head", "options")
_SUCCESS: Final = "2"


def broken(old: Document, new: Document) -> list[str]:
    """What clients of the old document lose with the new one, each as a sentence; empty when nothing."""
    compare = _asyncapi if "asyncapi" in old else _openapi
    return sorted(set(compare(old, new)))


def says_so(old: Document, new: Document) -> bool:
    """Whether the new document's major version is greater: a breaking change is announced by it."""
    return _major(new) > _major(old)


def _major(document: Document) -> int:
    found = re.search(r"\d+", str(document["info"]["version"]))
    return int(found[0]) if found else 0


def _openapi(old: Document, new: Document) -> Iterator[str]:
    for path, operations in old["paths"].items():
        now = new["paths"].get(path)
        if now is None:
            yield f"{path} is gone"
            continue
        for method in _METHODS:
            if method not in operations:
                continue
            where = f"{method.upper()} {path}"
            if method not in now:
                yield f"{where} is gone"
                continue
            shared = operations.get("parameters", []), now.get("parameters", [])
            yield from _parameters(old, new, operations[method], now[method], shared, where)
            yield from _body(old, new, operations[method], now[method], where)
            yield from _answers(old, new, operations[method], now[method], where)
            if now[method].get("security") and not operations[method].get("security"):
                yield f"{where} now asks who is there"


def _parameters(
    old: Document, new: Document, before: Any, now: Any, shared: tuple[list[Any], list[Any]], where: str
) -> Iterator[str]:
    known = _named(old, [*shared[0], *before.get("parameters", [])])
    given = _named(new, [*shared[1], *now.get("parameters", [])])
    comparison = Comparison(old, new, to_us=True)
    for key, each in known.items():
        if key not in given:
            yield f"{where}: the {key[0]} parameter {key[1]} is gone"
            continue
        if given[key].get("required") and not each.get("required"):
            yield f"{where}: the {key[0]} parameter {key[1]} is now required"
        yield from comparison.breaks(
            each.get("schema", {}), given[key].get("schema", {}), f"{where}: {key[1]}"
        )
    for key in given.keys() - known.keys():
        if given[key].get("required"):
            yield f"{where}: the {key[0]} parameter {key[1]} is now required"


def _named(document: Document, parameters: list[Any]) -> dict[tuple[str, str], Any]:
    resolved = [resolve(document, each) for each in parameters]
    return {(each["in"], each["name"]): each for each in resolved}


def _body(old: Document, new: Document, before: Any, now: Any, where: str) -> Iterator[str]:
    one, other = resolve(old, before.get("requestBody")), resolve(new, now.get("requestBody"))
    if other and other.get("required") and not (one or {}).get("required"):
        yield f"{where} now needs a body"
    if one and not other:
        yield f"{where} takes no body any more"
    if one and other:
        yield from _contents(old, new, one, other, f"{where} request", to_us=True)


def _answers(old: Document, new: Document, before: Any, now: Any, where: str) -> Iterator[str]:
    for status, each in before["responses"].items():
        if status not in now["responses"]:
            if status.startswith(_SUCCESS):
                yield f"{where} no longer answers {status}"
            continue
        one, other = resolve(old, each), resolve(new, now["responses"][status])
        yield from _contents(old, new, one, other, f"{where} {status}", to_us=False)
        for name in one.get("headers", {}).keys() - other.get("headers", {}).keys():
            yield f"{where} {status}: the header {name} is gone"


def _contents(
    old: Document, new: Document, one: Any, other: Any, where: str, *, to_us: bool
) -> Iterator[str]:
    comparison = Comparison(old, new, to_us=to_us)
    for kind, each in one.get("content", {}).items():
        if kind not in other.get("content", {}):
            yield f"{where} is no longer {kind}"
            continue
        schemas = each.get("schema", {}), other["content"][kind].get("schema", {})
        yield from comparison.breaks(*schemas, where)


def _asyncapi(old: Document, new: Document) -> Iterator[str]:
    for name, operation in old["operations"].items():
        now = new["operations"].get(name)
        if now is None or now["action"] != operation["action"]:
            yield f"the operation {name} is gone"
    for name, channel in old["channels"].items():
        now = new["channels"].get(name)
        if now is None:
            yield f"the topic {name} is gone"
            continue
        if now["address"] != channel["address"]:
            yield f"the topic {name} is now {now['address']}"
        if channel["bindings"]["kafka"]["partitions"] != now["bindings"]["kafka"]["partitions"]:
            yield f"the topic {name} has another number of partitions: keys move"
        for message, each in channel["messages"].items():
            if message not in now["messages"]:
                yield f"{name} no longer carries {message}"
                continue
            one, other = resolve(old, each), resolve(new, now["messages"][message])
            yield from _said(old, new, one, other, name)


def _said(old: Document, new: Document, one: Any, other: Any, name: str) -> Iterator[str]:
    """What changes of a message. One that we send as well as receive is ours: others only read it."""
    is_sent = f"send-{name}" in old["operations"]
    comparison = Comparison(old, new, to_us=not is_sent)
    for part in ("headers", "payload"):
        yield from comparison.breaks(one.get(part, {}), other.get(part, {}), f"{name} {part}")
    before, now = (each["bindings"]["kafka"].get("key", {}) for each in (one, other))
    yield from comparison.breaks(before, now, f"{name} key")
    if one.get("contentType") != other.get("contentType"):
        yield f"{name} is no longer {one.get('contentType')}"
