"""Settings from the environment: `HEADRACE_SECTION__KEY`, like `HEADRACE_MQTT__BIND`, and which variables are none.

A value is text. One that begins with [ or { may be a list or a table of TOML, where the key is not for text alone; what
is no TOML then is text too (`[::1]:1883`). No value is printed: it may be a secret.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from bridge.config import Config
from bridge.config_section import Section, key_names
from bridge.config_text import KeyPath

PREFIX = "HEADRACE_"
NO_SETTINGS = frozenset(("HEADRACE_TOKEN", "HEADRACE_COMPILED", "HEADRACE_CHROMIUM"))
"""Variables of ours that are no settings of a server: commands, the compiled modules and tests read them."""
OF_KUBERNETES = re.compile(
    r"HEADRACE_(?!\w*__)(\w+_)?(SERVICE_HOST=|SERVICE_PORT(_\w+)?=|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?=|PORT=(tcp|udp|sctp)://).*"
)
"""What Kubernetes sets in every container beside a service that is called headrace, or headrace-something."""
NEAR = 0.6
VERY_NEAR = 0.8
"""How like a setting a variable has to look that is no path."""


def environment_settings(environment: Mapping[str, str]) -> Iterator[tuple[str, KeyPath, object]]:
    """Variable, path and value of each setting; unknown keys too, for the judge of all layers to name."""
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in NO_SETTINGS:
            continue
        path = path_of(variable)
        if is_setting(path):
            yield variable, path, _value(path, text)


def path_of(variable: str) -> KeyPath:
    """The key that a variable stands for."""
    return tuple(variable.removeprefix(PREFIX).lower().split("__"))


def is_setting(path: KeyPath) -> bool:
    """A key at the top, or something in a section that exists."""
    section = _section(path[0])
    return (len(path) == 1 and path[0] in key_names(Config)) or (len(path) == 2 and section is not None)


def unknown_variables(environment: Mapping[str, str], named: frozenset[str]) -> Iterator[str]:
    """A sentence for each variable that looks like a setting and is none; `named` are others that are in use.

    Those look like one that have two underscores, begin with a section, or are the name of a setting but for a letter.
    """
    for variable, text in sorted(environment.items()):
        is_known = not variable.startswith(PREFIX) or variable in NO_SETTINGS or variable in named
        if is_known or OF_KUBERNETES.match(f"{variable}={text}") or is_setting(path_of(variable)):
            continue
        is_path = "__" in variable or _section(str(path_of(variable)[0]).partition("_")[0]) is not None
        nearest = difflib.get_close_matches(
            variable.removeprefix(PREFIX),
            [each.removeprefix(PREFIX) for each in _variables()],
            n=1,
            cutoff=NEAR if is_path else VERY_NEAR,
        )
        if not is_path and not nearest:
            continue  # another program's that begins so
        hint = f"Did you mean {PREFIX}{nearest[0]}?" if nearest else "One is called HEADRACE_SECTION__KEY."
        yield f"environment {variable}: there is no such setting. {hint}"


def _variables() -> Iterator[str]:
    for name in key_names(Config):
        yield f"{PREFIX}{name.upper()}"
        section = _section(name)
        if section is not None:
            yield from (f"{PREFIX}{name.upper()}__{key.upper()}" for key in key_names(section))
    yield from NO_SETTINGS


def _section(name: str | int) -> type[Section] | None:
    field = Config.model_fields.get(str(name))
    return type(field.default) if field is not None and isinstance(field.default, Section) else None


def _value(path: KeyPath, text: str) -> object:
    if not text.lstrip().startswith(("[", "{")) or _is_for_text(path):
        return text
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value


def _is_for_text(path: KeyPath) -> bool:
    """Keys for text alone: a password may begin with a bracket."""
    section = _section(path[0])
    field = section.model_fields.get(str(path[-1])) if section is not None and len(path) == 2 else None
    return field is not None and field.annotation in (str, str | None)
