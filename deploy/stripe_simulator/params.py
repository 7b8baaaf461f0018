"""Check request parameters one by one, with the refusals Stripe gives."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from deploy.stripe_simulator.errors import StripeError, invalid
from deploy.stripe_simulator.wire import Form

Check = Callable[[Any, str], Any]  # (value as sent, its full name) -> typed value; raises StripeError
Params = dict[str, Any]

METADATA_KEYS_MAX = 50
METADATA_KEY_LENGTH_MAX = 40
METADATA_VALUE_LENGTH_MAX = 500

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


def validate(
    form: Form, checks: Mapping[str, Check], *, required: Collection[str] = (), prefix: str = ""
) -> Params:
    """Return the typed parameters of `form`. Raises StripeError for unknown, missing and malformed ones."""
    unknown = [_full_name(prefix, name) for name in form if name not in checks]
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        message = f"Received unknown parameter{plural}: {', '.join(unknown)}"
        raise invalid(message, param=unknown[0], code="parameter_unknown")
    for name in required:
        if name not in form:
            full_name = _full_name(prefix, name)
            raise invalid(f"Missing required param: {full_name}.", param=full_name, code="parameter_missing")
    return {name: checks[name](value, _full_name(prefix, name)) for name, value in form.items()}


def _full_name(prefix: str, name: str) -> str:
    return f"{prefix}[{name}]" if prefix else name


def text(length_max: int = 5000) -> Check:
    """Accept a non-empty string of at most `length_max` characters."""

    def check(value: object, name: str) -> str:
        if not isinstance(value, str):
            raise invalid(f"Invalid string: {value}", param=name)
        if not value:
            raise _empty(name)
        if len(value) > length_max:
            raise _too_long(name, length_max, value)
        return value

    return check


def integer(minimum: int | None = None, maximum: int | None = None) -> Check:
    """Accept decimal digits within the bounds, both inclusive."""

    def check(value: object, name: str) -> int:
        if value == "":
            raise _empty(name)
        if not isinstance(value, str) or not _INTEGER.fullmatch(value):
            raise invalid(f"Invalid integer: {value}", param=name, code="parameter_invalid_integer")
        number = int(value)
        if minimum is not None and number < minimum:
            raise _out_of_bounds("greater", minimum, name, number)
        if maximum is not None and number > maximum:
            raise _out_of_bounds("less", maximum, name, number)
        return number

    return check


def boolean(value: object, name: str) -> bool:
    """Accept `true` and `false`."""
    if value not in {"true", "false"}:
        raise invalid(f"Invalid boolean: {value}", param=name)
    return value == "true"


def one_of(*choices: str) -> Check:
    """Accept one of `choices`."""

    def check(value: object, name: str) -> str:
        if value not in choices:
            listed = f"{', '.join(choices[:-1])}, or {choices[-1]}" if len(choices) > 1 else choices[0]
            raise invalid(f"Invalid {name}: must be one of {listed}", param=name)
        return str(value)

    return check


def url(value: object, name: str) -> str:
    """Accept something with a scheme: a web address or an app's own link."""
    if not isinstance(value, str) or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", value):
        raise invalid("Not a valid URL", param=name, code="url_invalid")
    return value


def email(value: object, name: str) -> str:
    """Accept something with an @ inside."""
    if not isinstance(value, str) or not re.fullmatch(r"[^@\s]+@[^@\s]+", value):
        raise invalid(f"Invalid email address: {value}", param=name, code="email_invalid")
    return value


def strings(value: object, name: str) -> list[str]:
    """Accept a list of strings, `name[]=a` or `name[0]=a`."""
    if not isinstance(value, dict) or not all(key.isdigit() for key in value):
        raise invalid("Invalid array", param=name)
    items = [value[key] for key in sorted(value, key=int)]
    return [text()(item, f"{name}[{index}]") for index, item in enumerate(items)]


def expansions(*allowed: str) -> Check:
    """Accept `expand[]` naming only fields in `allowed`."""

    def check(value: object, name: str) -> frozenset[str]:
        for field in (fields := strings(value, name)):
            if field not in allowed:
                raise invalid(f"This property cannot be expanded ({field}).", param=name)
        return frozenset(fields)

    return check


def mapping(checks: Mapping[str, Check], *, required: Collection[str] = ()) -> Check:
    """Accept a hash whose members pass `checks`, all `required` ones among them."""

    def check(value: object, name: str) -> Params:
        if not isinstance(value, dict):
            raise invalid("Invalid object", param=name)
        return validate(value, checks, required=required, prefix=name)

    return check


def metadata(value: object, name: str) -> dict[str, str]:
    """Accept up to 50 keys of 40 characters with values of 500; empty values drop out."""
    return merged({}, metadata_changes(value, name))


def merged(before: Mapping[str, str], changes: Mapping[str, str] | None) -> dict[str, str]:
    """Return the metadata that changes leave: an empty value removes its key, None removes all."""
    if changes is None:
        return {}
    return {key: item for key, item in {**before, **changes}.items() if item}


def metadata_changes(value: object, name: str) -> dict[str, str] | None:
    """Accept what `metadata` does, empty values among them; None, sent as an empty string, clears all."""
    if value == "":
        return None
    if not isinstance(value, dict):
        raise invalid("Invalid object", param=name)
    if len(value) > METADATA_KEYS_MAX:
        message = f"Metadata can have up to {METADATA_KEYS_MAX} keys, but you passed in {len(value)}."
        raise invalid(message, param=name)
    for key, item in value.items():
        _check_metadata_item(key, item, name)
    return value


def _check_metadata_item(key: str, item: object, name: str) -> None:
    if not isinstance(item, str):
        raise invalid("Metadata values must be strings, but for this key you passed in a hash.", param=name)
    if len(key) > METADATA_KEY_LENGTH_MAX:
        message = (
            f"Metadata keys can be up to {METADATA_KEY_LENGTH_MAX} characters, but you passed in {len(key)}."
        )
        raise invalid(message, param=name)
    if len(item) > METADATA_VALUE_LENGTH_MAX:
        message = (
            f"Metadata values can have up to {METADATA_VALUE_LENGTH_MAX} characters, but you passed in a "
            f"value that is {len(item)} characters. Invalid value: {item}"
        )
        raise invalid(message, param=f"{name}[{key}]")


def not_simulated(value: object, name: str) -> None:
    """Refuse, saying so, a parameter that Stripe knows and this simulator does not: never ignore it."""
    del value
    raise invalid(f"The parameter {name} exists at Stripe but is not simulated.", param=name)


def _empty(name: str) -> StripeError:
    message = (
        f"You passed an empty string for '{name}'. We assume empty values are an attempt to unset "
        f"a parameter; however '{name}' cannot be unset. You should remove '{name}' from your request "
        "or supply a non-empty value."
    )
    return invalid(message, param=name, code="parameter_invalid_empty")


def _too_long(name: str, length_max: int, value: str) -> StripeError:
    return invalid(
        f"Invalid {name}: must be at most {length_max} characters (it has {len(value)})", param=name
    )


def _out_of_bounds(direction: str, bound: int, name: str, number: int) -> StripeError:
    message = f"This value must be {direction} than or equal to {bound} (it currently is '{number}')."
    return invalid(message, param=name, code="parameter_invalid_integer")
