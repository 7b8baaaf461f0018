"""Keep the code in short functions and files, each of which says what it is for."""

import ast
import math
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared", "payment_api", "payment_worker", "deploy")
MIGRATIONS = "shared/migrations/versions/"  # lists of declarations, written once and never changed

MEDIAN_FUNCTION_LINES = 10
P95_FUNCTION_LINES = 40
MAX_FUNCTION_LINES = 70
MAX_FILE_LINES = 300
MAX_EXEMPT_FILE_LINES = 400

# Files of routes, models or settings only, which may be longer; each with the reason why it is not split.
LONGER_FILES: dict[str, str] = {
    "shared/models.py": "every table in one place",
    "shared/settings.py": "every setting in one place",
}

# Ruff's codes, and behind a dash why they do not hold here.
REASONED_EXEMPTION = re.compile(r"# noqa: [A-Z]+\d+(, [A-Z]+\d+)* - \w")
RULE_IN_SETTINGS = re.compile(r'\s+"[A-Z]+\d*",')
SETTINGS_OF_RUFF = ("[tool.ruff.lint]", "[tool.ruff.lint.flake8-type-checking]")  # from, up to

type_of_function = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[str]:
    """Return the paths of all modules of the packages, relative to the repository."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return sorted(str(path.relative_to(ROOT)) for path in found)


@cache
def parsed(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), module)


def function_lengths() -> dict[str, int]:
    """Return the lines of every function, signature and docstring included, by where it stands."""
    return {
        f"{module}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module in modules()
        if not module.startswith(MIGRATIONS)
        for node in ast.walk(parsed(module))
        if isinstance(node, type_of_function)
    }


def public_functions(scope: ast.Module | ast.ClassDef) -> Iterator[Function]:
    """Yield the functions and methods that others may call: no leading underscore anywhere in their path."""
    for node in scope.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        if isinstance(node, type_of_function) and not node.name.startswith("_"):
            yield node


def is_declaration(function: Function) -> bool:
    """Tell whether a function is an overload or a setter, which its implementation or getter explains."""
    return any(ast.unparse(mark).endswith(("overload", ".setter")) for mark in function.decorator_list)


def test_functions_are_short() -> None:
    """Half of all functions fit in ten lines, nearly all in forty, and each on one screen."""
    lengths = function_lengths()
    ordered = sorted(lengths.values())
    assert {where: lines for where, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}
    assert ordered[math.ceil(0.95 * len(ordered)) - 1] <= P95_FUNCTION_LINES, longest(lengths)
    assert median(ordered) <= MEDIAN_FUNCTION_LINES


def longest(lengths: dict[str, int]) -> str:
    """Return the longest functions, to show where to begin."""
    return "\n".join(
        f"{lines} {where}"
        for where, lines in sorted(lengths.items(), key=lambda item: -item[1])
        if lines > P95_FUNCTION_LINES
    )


@pytest.mark.parametrize("module", modules())
def test_files_are_short(module: str) -> None:
    """A file holds one thing; only routes and models may run longer, with a reason given."""
    limit = MAX_EXEMPT_FILE_LINES if module in LONGER_FILES else MAX_FILE_LINES
    assert len((ROOT / module).read_text(encoding="utf-8").splitlines()) <= limit


def test_exemptions_are_still_needed_and_give_a_reason() -> None:
    """An exemption goes when its file has become short, and never stands without a reason."""
    for module, reason in LONGER_FILES.items():
        assert len((ROOT / module).read_text(encoding="utf-8").splitlines()) > MAX_FILE_LINES, module
        assert reason, module


def exemptions() -> Iterator[tuple[str, str]]:
    """Yield the comments that exempt a line or a file from a lint rule, by where they stand."""
    for path in (path for folder in (*PACKAGES, "tests") for path in (ROOT / folder).rglob("*.py")):
        if b"noqa" in path.read_bytes():
            with tokenize.open(path) as file:
                for token in tokenize.generate_tokens(file.readline):
                    if token.type == tokenize.COMMENT and "noqa" in token.string:
                        yield f"{path.relative_to(ROOT)}:{token.start[0]}", token.string


def test_every_exemption_from_a_lint_rule_gives_its_reason() -> None:
    """An exemption names its rules, and behind a dash why they do not hold there; so do the settings."""
    found = dict(exemptions())
    assert found, "there are some, or they are looked for in the wrong way"
    assert {where: says for where, says in found.items() if not REASONED_EXEMPTION.match(says)} == {}
    first, last = SETTINGS_OF_RUFF
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition(first)[2].partition(last)[0]
    rules = [line for line in settings.splitlines() if RULE_IN_SETTINGS.match(line)]
    assert rules
    assert [line for line in rules if not re.search(r"# \w", line)] == []


@pytest.mark.parametrize("module", modules())
def test_modules_say_what_they_are_for(module: str) -> None:
    """A module begins with a docstring whose first line is one sentence; an empty __init__ needs none."""
    tree = parsed(module)
    if not tree.body:
        assert module.endswith("__init__.py")
        return
    first_line = (ast.get_docstring(tree) or "").partition("\n")[0]
    assert first_line.endswith("."), "the first line is a sentence of its own"


@pytest.mark.parametrize("module", [module for module in modules() if not module.startswith(MIGRATIONS)])
def test_public_functions_say_what_they_mean(module: str) -> None:
    """Every function that others may call has a docstring."""
    silent = [
        f"{function.name}, line {function.lineno}"
        for function in public_functions(parsed(module))
        if not ast.get_docstring(function) and not is_declaration(function)
    ]
    assert silent == []
