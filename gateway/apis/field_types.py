"""Types that the requests of several API families share.

Bodies are parsed strictly: a number is not a text and "1" is not a number, except where the imitated servers convert
(`LenientBool`, `LenientCount`). Unknown fields are ignored and null counts as absent, as in the services that these
APIs come from. Empty inputs and limits are checked by the handlers, because each family answers them differently.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticUseDefault
from pydantic_core.core_schema import custom_error_schema


class RequestModel(BaseModel):
    """Base of request bodies."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, use_attribute_docstrings=True)


class AnswerModel(BaseModel):
    """Base of response models. They only describe the API; `gateway.encoding` writes the responses."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class _Nullable:
    """Shows in the OpenAPI document that null is accepted."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"type": "null"}]}


def _default_for_null(value: Any) -> Any:
    if value is None:
        raise PydanticUseDefault
    return value


NullIsAbsent = (BeforeValidator(_default_for_null), _Nullable())
"""Annotations of a field for which null means its default."""


class OneMessage:
    """Replaces the errors of all branches of a union by one message.

    Args:
        message: What the field accepts, for the caller.
    """

    def __init__(self, message: str) -> None:
        self._message = message

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return custom_error_schema(handler(source), custom_error_type="union", custom_error_message=self._message)


# Servers that parse with pydantic, as vLLM and infinity do, convert by these rules:
# https://docs.pydantic.dev/latest/concepts/conversion_table
LenientBool = Annotated[
    bool,
    Field(strict=False),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "boolean"},
                {"type": "integer", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": "^([01A-Za-z]|on|off|no|yes|true|false)$"},
            ]
        }
    ),
]
"""A boolean, or a number or text that means one, such as 1, "true" and "no"."""
LenientCount = Annotated[
    int,
    Field(ge=0, le=2**31 - 1, strict=False),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
                {"type": "string", "pattern": "[0-9]"},
                {"type": "boolean"},
            ]
        }
    ),
]
"""A number of things, or a text, float or boolean that means one, such as "3" and 3.0."""
OnlyFalse = Annotated[Literal[False], OneMessage("true is not supported")]
"""A field that changes the result if it is true, which no service here can do."""


# Validation stops at the first wrong item of a list: one error for each item would cost a kilobyte for two bytes of the
# body, and a branch of a union that does not fit fails on every item.
STOPS_AT_FIRST_ERROR = Field(fail_fast=True)
"""Annotation of every list in a request."""
_SHOWN_NOT_EMPTY_LIST = Field(json_schema_extra={"minItems": 1})
Text = Annotated[str, Field(json_schema_extra={"minLength": 1})]
"""One input."""
Texts = Annotated[list[Text], STOPS_AT_FIRST_ERROR, _SHOWN_NOT_EMPTY_LIST]
"""Several inputs."""
MaybeEmptyTexts = Annotated[list[str], STOPS_AT_FIRST_ERROR, _SHOWN_NOT_EMPTY_LIST]
"""Several texts to score, each of which may be empty."""
TokenId = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""A token id of some vocabulary."""
Ids = Annotated[list[TokenId], STOPS_AT_FIRST_ERROR, _SHOWN_NOT_EMPTY_LIST]
"""One input as token ids."""
IdLists = Annotated[list[Ids], STOPS_AT_FIRST_ERROR, _SHOWN_NOT_EMPTY_LIST]
"""Several inputs as token ids."""

Inputs = Annotated[
    Text | Texts | Ids | IdLists,
    Field(union_mode="left_to_right"),
    OneMessage("must be a text, a list of texts, a list of token ids or a list of lists of token ids"),
]
"""One or several inputs to embed, as texts or as token ids."""
TextInputs = Annotated[Text | Texts, Field(union_mode="left_to_right"), OneMessage("must be a text or a list of texts")]
"""One or several texts."""
IdInputs = Annotated[
    Ids | IdLists,
    Field(union_mode="left_to_right"),
    OneMessage("must be a list of token ids or a list of lists of token ids, each from 0 to 4294967295"),
]
"""One or several inputs as token ids."""
