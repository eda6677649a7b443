"""``skerry schema export``: what integrators program against."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bus.stamp import VERSION


@click.group()
def command() -> None:
    """What is said on the bus, for programs in any language."""


@command.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def export(directory: Path) -> None:
    """Write a JSON Schema of every model and one AsyncAPI 3.0 document of every subject into DIRECTORY.

    \b
    Example:
      skerry schema export build/schemas
    """
    from schemas import export as generated

    documents = generated.documents(VERSION)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, document in documents.items():
            (directory / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OSError as e:
        raise click.ClickException(f"can't write to {directory}: {e}") from e
    click.echo(f"{len(documents)} documents in {directory}, begin with {directory / 'asyncapi.json'}")
