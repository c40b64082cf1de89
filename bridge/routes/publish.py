"""Sending: `POST /api/v1/publish` enters at the router like a device's publish."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, Response

from bridge.errors import BodyTooLarge, Forbidden, NotAvailable, ParameterInvalid, Unavailable
from bridge.node import Node, PublishRefused
from broker.codec.constants import PUBLISH
from broker.codec.errors import MqttError, PacketTooLarge
from broker.codec.primitives import encode_binary, encode_string
from broker.codec.properties import Properties, encode_properties
from broker.routing import is_reserved
from broker.topics.names import refuse_control_characters, validate_topic_name

router = APIRouter(prefix="/api/v1", tags=["sending"])

EXPIRY_S_MAX = 2**32 - 1
SHOWN_CHARACTERS_MAX = 80


class PublishProperties(BaseModel):
    """MQTT 5 properties of the publish."""

    model_config = ConfigDict(extra="forbid", strict=True)

    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: str | None = Field(None, description="base64")
    message_expiry_interval: int | None = Field(None, ge=0, le=EXPIRY_S_MAX, description="seconds")
    payload_format_indicator: int | None = Field(None, ge=0, le=1)
    user_properties: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        default_factory=list, description="[name, value] in order"
    )


class PublishBody(BaseModel):
    """What to publish, and how."""

    model_config = ConfigDict(extra="forbid", strict=True)

    topic: str
    payload: Any = Field(description="Any JSON; a string for the encodings text and base64")
    encoding: Literal["json", "text", "base64"] | None = Field(
        None, description="How `payload` is meant. Without it a string is text and anything else is JSON"
    )
    qos: int = Field(0, ge=0, le=2)
    retain: bool = False
    expiry_s: int | None = Field(None, ge=0, le=EXPIRY_S_MAX, description="The message expires after so many seconds")
    properties: PublishProperties | None = None


def _body_schema() -> dict[str, Any]:
    schema = PublishBody.model_json_schema()
    definitions = schema.pop("$defs", {})
    schema["properties"]["properties"] = definitions["PublishProperties"]
    return schema


@router.post(
    "/publish",
    status_code=202,
    summary="Publish a message",
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _body_schema()}}}},
)
async def publish(request: Request) -> Response:
    """Answers when the record is as safe as its stream promises: after the commit where `ack` is `stored`."""
    # The body is read here and not by FastAPI, so that whole numbers of any size keep their digits.
    node: Node = request.app.state.node
    body = _parse(await request.body())
    topic_name = _topic_name(body.topic)
    payload = encode_payload(body)
    properties = _properties(body)
    size, largest = len(payload), node.config.mqtt.packet_bytes_max
    if properties is not None:
        size += len(encode_properties(properties, PUBLISH))
    if size > largest:
        what = "The payload has" if size == len(payload) else "The payload and its properties have"
        raise BodyTooLarge(f"{what} {size} bytes; {largest} are taken.", limit="mqtt.packet_bytes_max")
    try:
        outcome = await node.publish(topic_name, payload, qos=body.qos, retain=body.retain, properties=properties)
    except PacketTooLarge as error:
        raise BodyTooLarge(f"The message is too large: {error}.") from error
    except MqttError as error:
        raise ParameterInvalid("topic", f"topic: {error}.") from error
    except PublishRefused as error:
        raise Unavailable(f"The message was not stored: {error}.") from error
    return JSONResponse(
        {
            "delivered_to": outcome.delivered_to,
            "stream": outcome.stream,
            "partition": outcome.partition,
            "offset": outcome.offset,
        },
        202,
        headers={"Cache-Control": "no-store"},
    )


def _parse(raw: bytes) -> PublishBody:
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ParameterInvalid("body", f"The body is no JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ParameterInvalid("body", "The body is no JSON object.")
    if value.get("respond_within_s") is not None:
        raise NotAvailable("respond_within_s")
    value.pop("respond_within_s", None)
    try:
        return PublishBody.model_validate(value)
    except ValidationError as error:
        mistake = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part) for part in mistake["loc"]) or "body"
        raise ParameterInvalid(name, f"{name}: {mistake['msg']}.") from error


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not in JSON")


def _topic_name(topic: str) -> str:
    try:
        topic_name = validate_topic_name(encode_string(topic)[2:])
        refuse_control_characters(topic_name)
    except (MqttError, ValueError) as error:
        raise ParameterInvalid("topic", f"topic: {_shown(topic)} is no topic name: {error}.") from error
    if is_reserved(topic_name):
        raise Forbidden(f"Only the server itself publishes to {topic_name!r}.")
    return topic_name


def encode_payload(body: PublishBody) -> bytes:
    """The payload's bytes. Raises: ParameterInvalid."""
    payload, encoding = body.payload, body.encoding
    if encoding == "json" or (encoding is None and not isinstance(payload, str)):
        try:
            return json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except (ValueError, RecursionError) as error:  # half a surrogate pair, 1e999, too deep
            raise ParameterInvalid("payload", f"payload: this cannot be JSON: {error}.") from error
    if not isinstance(payload, str):
        raise ParameterInvalid("payload", f"payload: the encoding {encoding} needs a string.")
    try:
        return base64.b64decode(payload, validate=True) if encoding == "base64" else payload.encode()
    except (binascii.Error, ValueError) as error:
        raise ParameterInvalid("payload", f"payload: this is not {encoding or 'text'}: {error}.") from error


def _properties(body: PublishBody) -> Properties | None:
    given = body.properties
    if given is None and body.expiry_s is None:
        return None
    properties = Properties()
    if given is not None:
        properties.content_type = _text("content_type", given.content_type)
        properties.response_topic = _text("response_topic", given.response_topic)
        properties.message_expiry_interval = given.message_expiry_interval
        properties.payload_format_indicator = given.payload_format_indicator
        properties.user_properties = [
            (_text("user_properties", name), _text("user_properties", value)) for name, value in given.user_properties
        ]
        if given.correlation_data is not None:
            properties.correlation_data = _binary("correlation_data", given.correlation_data)
        if properties.response_topic is not None:
            _topic_name_of_response(properties.response_topic)
    if body.expiry_s is not None:
        properties.message_expiry_interval = body.expiry_s
    return properties


TextT = TypeVar("TextT", str, str | None)


def _text(name: str, value: TextT) -> TextT:
    """The value, when MQTT can carry it (§1.5.4). Raises: ParameterInvalid"""
    if value is not None:
        try:
            encode_string(value)
        except ValueError as error:
            raise ParameterInvalid(f"properties.{name}", f"{name}: {_shown(value)}: {error}.") from error
    return value


def _binary(name: str, value: str) -> bytes:
    """The bytes of base64, when MQTT can carry them (§1.5.6). Raises: ParameterInvalid"""
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ParameterInvalid(f"properties.{name}", f"{name}: no base64: {error}.") from error
    try:
        encode_binary(data)
    except ValueError as error:
        raise ParameterInvalid(f"properties.{name}", f"{name}: {error}.") from error
    return data


def _shown(text: str) -> str:
    """For a problem's detail, which is to be read: the beginning of it, as ASCII."""
    return ascii(text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}…")


def _topic_name_of_response(topic: str) -> None:
    try:
        validate_topic_name(topic.encode())
    except MqttError as error:
        raise ParameterInvalid("properties.response_topic", f"response_topic: {error}.") from error
