"""Section: what every table of the configuration is, and the kinds of values that its keys have."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from bridge.quantities import parse_age_s, parse_size

Size = Annotated[int, BeforeValidator(parse_size)]
Seconds = Annotated[float, BeforeValidator(parse_age_s)]
WholeSeconds = Annotated[int, BeforeValidator(parse_age_s)]
Count = int


class Section(BaseModel):
    """A table of the configuration: frozen, and without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def key_names(section: type[Section]) -> list[str]:
    """The keys of a table as they are written."""
    return [field.alias or name for name, field in section.model_fields.items()]
