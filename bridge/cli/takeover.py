"""`headrace check-config --from FILE`: another broker's configuration as ours, on standard output."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from bridge.cli.errors import EXIT_USAGE, UserError
from bridge.cli.serve import say
from bridge.config_source import judged
from bridge.takeover.translation import CannotTranslate, Translation

YAML_SUFFIXES = (".yaml", ".yml")


def run_takeover(file: Path, *, is_alone: bool) -> None:
    """Print the TOML, with the lines that have no equivalent on top; how many these are goes to standard error.

    Raises:
        UserError: the file cannot be read, or is no such configuration.
        ConfigError: what was made of it is not valid.
    """
    if not is_alone:
        raise UserError("--from reads FILE alone; leave out -c and --data.", EXIT_USAGE)
    try:
        translation = translate(file)
    except CannotTranslate as error:
        raise UserError(str(error), EXIT_USAGE) from error
    text = translation.text()
    judged(tomllib.loads(text))
    say(text.rstrip("\n"))
    print(f"{file}: {_summary(len({note.place for note in translation.notes}))}.", file=sys.stderr)


def _summary(count: int) -> str:
    if not count:
        return "every line has an equivalent"
    lines = "1 line has" if count == 1 else f"{count} lines have"
    return f"{lines} no equivalent and stand{'s' if count == 1 else ''} on top, with what to do instead"


def translate(file: Path) -> Translation:
    """By what the file's name ends in. Raises: CannotTranslate"""
    if file.suffix.lower() in YAML_SUFFIXES:
        from bridge.takeover.amqtt_yaml import translate_amqtt

        return translate_amqtt(file)
    from bridge.takeover.mosquitto_conf import translate_mosquitto

    return translate_mosquitto(file)
