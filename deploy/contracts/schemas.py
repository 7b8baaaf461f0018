"""What a change of a JSON Schema breaks for those who send such documents, or for those who read them."""

from collections.abc import Iterator
from typing import Any, Final

Schema = dict[str, Any]

# Rising, or falling, refuses what was accepted before.
_LEAST: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_FORMS: Final = ("pattern", "format", "multipleOf", "uniqueItems")
_ANY: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


class Comparison:
    """Compares the schemas of two documents, whose references it follows.

    `to_us` says who reads: what others send to us must still be accepted, and what they read from us must
    still be what it was. Readers are asked to live with fields and listed values that they do not know.
    """

    def __init__(self, old: dict[str, Any], new: dict[str, Any], *, to_us: bool) -> None:
        """Take references from these documents."""
        self._old, self._new, self._to_us = old, new, to_us
        self._compared: set[tuple[str, str]] = set()

    def breaks(self, old: Any, new: Any, where: str) -> Iterator[str]:
        """Yield what is broken, each with where it is."""
        names = _reference(old), _reference(new)
        if all(names):
            if names in self._compared:
                return
            self._compared.add(names)
        old, new = _plain(self._old, old), _plain(self._new, new)
        yield from self._types(old, new, where)
        yield from self._values(old, new, where)
        yield from self._limits(old, new, where)
        yield from self._fields(old, new, where)
        yield from self._choices(old, new, where)
        if isinstance(old.get("items"), dict) and isinstance(new.get("items"), dict):
            yield from self.breaks(old["items"], new["items"], f"{where}[]")

    def _types(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        before, now = _types(old), _types(new)
        lost = before - now if self._to_us else now - before
        if lost:
            how = "is no longer accepted as" if self._to_us else "may now be"
            yield f"{where} {how} {' or '.join(sorted(lost))}"

    def _values(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        before, now = _values(old), _values(new)
        if now is None:
            if before is not None and not self._to_us:
                yield f"{where} no longer lists its values"
        elif before is None:
            if self._to_us:
                yield f"{where} now takes only listed values"
        elif lost := [each for each in before if each not in now]:
            yield f"{where} no longer has the values {lost}"

    def _limits(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        if not self._to_us:
            if old.get("format") != new.get("format"):
                yield f"{where} has another format"
            return
        for name in _LEAST:
            if name in new and (name not in old or new[name] > old[name]):
                yield f"{where} has a greater {name}"
        for name in _MOST:
            if name in new and (name not in old or new[name] < old[name]):
                yield f"{where} has a smaller {name}"
        for name in _FORMS:
            if name in new and new[name] != old.get(name):
                yield f"{where} has another {name}"

    def _fields(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        before, now = old.get("properties", {}), new.get("properties", {})
        for name in before:
            if name in now:
                yield from self.breaks(before[name], now[name], f"{where}.{name}")
            else:
                yield f"{where}.{name} is gone"
        must_before, must_now = set(old.get("required", [])), set(new.get("required", []))
        if self._to_us:
            yield from (f"{where}.{name} is now required" for name in sorted(must_now - must_before))
        else:
            missing = (must_before - must_now) & set(now)
            yield from (f"{where}.{name} may now be missing" for name in sorted(missing))
        closed = new.get("additionalProperties") is False and old.get("additionalProperties") is not False
        if self._to_us and closed:
            yield f"{where} refuses further fields"
        rest = old.get("additionalProperties"), new.get("additionalProperties")
        if all(isinstance(each, dict) for each in rest):
            yield from self.breaks(*rest, f"{where}.*")

    def _choices(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        for word in ("anyOf", "oneOf", "allOf"):
            before, now = old.get(word, []), new.get(word, [])
            # More to choose from is more than a reader knows; fewer are less than a sender may use.
            fewer, more = len(now) < len(before), len(now) > len(before)
            narrower = more if word == "allOf" else fewer
            wider = fewer if word == "allOf" else more
            if narrower if self._to_us else wider:
                yield f"{where} has other choices ({word})"
            for number, (one, other) in enumerate(zip(before, now, strict=False)):
                yield from self.breaks(one, other, f"{where}<{number}>")


def _reference(schema: Any) -> str:
    return str(schema.get("$ref", "")) if isinstance(schema, dict) else ""


def resolve(document: dict[str, Any], schema: Any) -> Any:
    """What a reference within the document stands for; anything else as it is."""
    while name := _reference(schema):
        schema = document
        for step in name.removeprefix("#/").split("/"):
            schema = schema[step.replace("~1", "/").replace("~0", "~")]
    return schema


def _plain(document: dict[str, Any], schema: Any) -> Schema:
    """A schema with its reference followed, and "this, or null" written as a type."""
    schema = resolve(document, schema)
    if not isinstance(schema, dict):
        return {}
    for word in ("anyOf", "oneOf"):
        rest = [each for each in schema.get(word, []) if each != {"type": "null"}]
        if len(rest) == 1 and len(schema[word]) > 1:
            inner = _plain(document, rest[0])
            return inner | {"type": [*_types(inner), "null"]}
    if len(schema.get("allOf", [])) == 1:
        return _plain(document, schema["allOf"][0]) | {k: v for k, v in schema.items() if k != "allOf"}
    return schema


def _types(schema: Schema) -> frozenset[str]:
    """The types that a schema allows; every integer is a number."""
    given = schema.get("type")
    if given is None:
        values = _values(schema)
        return _ANY if values is None else frozenset(map(_type_of, values))
    types = {given} if isinstance(given, str) else set(given)
    return frozenset(types | ({"integer"} if "number" in types else set()))


def _type_of(value: Any) -> str:
    for name, kind in (("boolean", bool), ("integer", int), ("number", float), ("string", str)):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "object"


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values: list[Any] | None = schema.get("enum")
    return values
