"""`payment-worker asyncapi`: print the AsyncAPI document."""

import click
import simplejson

from payment_worker.cli.command import main


@main.command()
@click.option("--prefix", default="", help="what stands before every topic's name: KAFKA_TOPIC_PREFIX")
def asyncapi(prefix: str) -> None:
    """Print the AsyncAPI 3 document of all topics: values, keys, headers and examples."""
    from payment_worker.asyncapi import document

    click.echo(simplejson.dumps(document(prefix), indent=2, use_decimal=True))
