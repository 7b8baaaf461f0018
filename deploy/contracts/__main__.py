"""Compare the present contracts with those agreed on (`make check`), or agree on them (`make contracts`)."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import simplejson

from deploy.contracts.changes import broken, says_so

FOLDER = Path(__file__).parent
BIN = Path(sys.executable).parent
MADE_BY = {"openapi": "payment-api", "asyncapi": "payment-worker"}


def present(name: str) -> dict[str, Any]:
    """The document that the code makes now."""
    done = subprocess.run([BIN / MADE_BY[name], name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{MADE_BY[name]} {name} failed:\n{done.stderr}")
    document: dict[str, Any] = simplejson.loads(done.stdout, use_decimal=True)
    return document


def agreed(name: str) -> dict[str, Any]:
    """The document that clients know."""
    document: dict[str, Any] = simplejson.loads((FOLDER / f"{name}.json").read_text(), use_decimal=True)
    return document


def judge(name: str, old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """What is wrong with the present document, or None."""
    if (lost := broken(old, new)) and not says_so(old, new):
        told = "\n".join(f"  {each}" for each in lost)
        return f"{name}: clients of the contract would break (raise its major version if they shall):\n{told}"
    if old != new:
        return f"{name}: changed, and no client breaks: run `make contracts` and commit what it writes"
    return None


@click.command()
@click.option("--write", is_flag=True, help="agree on the present contracts")
def main(*, write: bool) -> None:
    """Compare the present contracts with those that were agreed on."""
    wrong = False
    for name in MADE_BY:
        new = present(name)
        if write:
            text = simplejson.dumps(new, indent=2, use_decimal=True, sort_keys=True)
            (FOLDER / f"{name}.json").write_text(text + "\n")
            click.echo(f"deploy/contracts/{name}.json")
        elif why := judge(name, agreed(name), new):
            wrong = True
            click.echo(why, err=True)
        else:
            click.echo(f"{name}: as agreed on")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
