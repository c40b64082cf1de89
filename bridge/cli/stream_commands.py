"""`headrace streams …`: the commands and their options; `bridge.cli.streams` does what they say."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from bridge.cli.options import ConfigFile, DataDir, Token, Url

streams_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, describe, trim and delete streams, and show what Kafka refused.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The stream's name.")]
Form = Annotated[Literal["table", "json"], typer.Option("--format", help="For people, or as the API gives it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


@streams_app.command("list")
def list_streams(
    form: Form = "table", url: Url = None, token: Token = None, config: ConfigFile = None, data: DataDir = None
) -> None:
    """All streams: those of the configuration, and those that are on disk and not configured any more."""
    from bridge.cli.stream_places import Place
    from bridge.cli.streams import run_list

    run_list(Place.of(config, data, url, token), form)


@streams_app.command()
def describe(
    name: Name,
    form: Form = "table",
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
    data: DataDir = None,
) -> None:
    """All that is known of one stream."""
    from bridge.cli.stream_places import Place
    from bridge.cli.streams import run_describe

    run_describe(Place.of(config, data, url, token), name, form)


@streams_app.command()
def trim(
    name: Name,
    before: Annotated[
        str | None,
        typer.Option(metavar="T|OFFSET", help="Drop what is older: a time like -7d, or an offset like 8812."),
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--bytes", metavar="SIZE", help="Drop the oldest until SIZE is kept, like 1GiB.")
    ] = None,
    yes: Yes = False,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
    data: DataDir = None,
) -> None:
    """Drop the oldest records now.

    Before a time or an offset it is exact. A number below 100,000,000,000 is an offset, a larger one is a time in epoch
    milliseconds. Readers that had not seen what is dropped get a gap.
    """
    from bridge.cli.stream_places import Place
    from bridge.cli.streams import run_trim

    run_trim(Place.of(config, data, url, token), name, before, keep, is_confirmed=yes)


@streams_app.command()
def delete(
    name: Name,
    yes: Yes = False,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
    data: DataDir = None,
) -> None:
    """Delete a stream that is on disk and not configured any more."""
    from bridge.cli.stream_places import Place
    from bridge.cli.streams import run_delete

    run_delete(Place.of(config, data, url, token), name, is_confirmed=yes)


@streams_app.command("dead-letters")
def dead_letters(
    name: Name,
    form: Annotated[
        Literal["table", "ndjson"], typer.Option("--format", help="For people, or one JSON object a line.")
    ] = "table",
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
    data: DataDir = None,
) -> None:
    """Records that Kafka will never take (too large, not authorised), with the reason."""
    from bridge.cli.stream_places import Place
    from bridge.cli.streams import run_dead_letters

    run_dead_letters(Place.of(config, data, url, token), name, form)
