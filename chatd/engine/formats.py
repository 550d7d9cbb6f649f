"""Whether an answer is what `response_format` asked for."""

from typing import Final

import jsonschema_rs
import orjson

from chatd.backends import Completion
from schemas.base import JsonObject
from schemas.chat import JsonObjectFormat, JsonSchemaFormat, ResponseFormat
from services.errors import InvalidRequest, UpstreamError

ANY_OBJECT: Final[JsonObject] = {"type": "object"}


class FormatCheck:
    """Compiled once a call. Raises `InvalidRequest` for a schema that is none."""

    def __init__(self, wanted: ResponseFormat | None) -> None:
        self._validator: jsonschema_rs.Validator | None = None
        match wanted:
            case JsonSchemaFormat(json_schema=spec):
                self._validator = _compiled(spec.schema_)
            case JsonObjectFormat():
                self._validator = _compiled(ANY_OBJECT)

    def check(self, completion: Completion) -> None:
        """Raise `UpstreamError` when a finished answer breaks the schema.

        An answer that was cut (`length`), filtered or refused, or that calls tools instead, is returned
        as it is: its `finish_reason` says so, as with OpenAI.
        """
        if self._validator is None or completion.finish_reason != "stop" or completion.refusal:
            return
        try:
            holds = self._validator.is_valid(orjson.loads(completion.content or ""))
        except orjson.JSONDecodeError:
            holds = False
        if not holds:
            raise UpstreamError(
                "the model's answer does not match the `response_format` it was asked for",
                code="response_format_violated",
                param="response_format",
            )


def _refuse(uri: str) -> JsonObject:
    raise ValueError(f"{uri} is not in the schema, and nothing is fetched")


def _compiled(schema: JsonObject) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.validator_for(schema, retriever=_refuse)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        first_line = str(error).partition("\n")[0]
        raise InvalidRequest(
            f"the schema of `response_format` cannot be used: {first_line}",
            param="response_format.json_schema.schema",
        ) from None
