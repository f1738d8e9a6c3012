"""Serializers and fields that take JSON at its word: what has the wrong type is refused, not converted.

They read and check, and that is all: services write.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

from django.db import models
from django.utils.datastructures import MultiValueDict
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.fields import empty
from rest_framework.settings import api_settings

from imagehub.database import UNSTORABLE

_JSON_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "a string"),
    (list, "a list"),
    (Mapping, "an object"),
)


def json_type(value: Any) -> str:
    """Name the type of a value as the caller knows it."""
    return next((name for kind, name in _JSON_TYPES if isinstance(value, kind)), "null")


class StrictCharField(serializers.CharField):
    """A string, and nothing that could be made into one. White space around it is taken off."""

    default_error_messages = {
        "invalid": "A string is expected, not {found}.",
        "blank": "This may not be empty.",
        "null_character": "It contains a NUL character, which cannot be stored.",
        "surrogate": "It contains half of a surrogate pair, which is no character.",
    }

    def run_validation(self, data: Any = empty) -> Any:
        if isinstance(data, str):
            _check_characters(self, data)
        return super().run_validation(data)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid", found=json_type(data))
        return super().to_internal_value(data)


class StrictIntegerField(serializers.IntegerField):
    """A whole number, written as one: neither ``true`` nor ``"3"`` nor ``3.0``."""

    default_error_messages = {"invalid": "A whole number is expected, not {found}."}

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, float):
            self.fail("invalid", found="a number with a fraction" if math.isfinite(data) else str(data))
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid", found=json_type(data))
        return data


class StrictFloatField(serializers.FloatField):
    """A finite number."""

    default_error_messages = {
        "invalid": "A number is expected, not {found}.",
        "not_finite": "A finite number is expected: NaN and Infinity are none.",
    }

    def to_internal_value(self, data: Any) -> float:
        if not isinstance(data, int | float) or isinstance(data, bool):
            self.fail("invalid", found=json_type(data))
        try:
            value = float(data)
        except OverflowError:
            self.fail("not_finite")
        if not math.isfinite(value):
            self.fail("not_finite")
        return value


class StrictBooleanField(serializers.BooleanField):
    """``true`` or ``false``."""

    default_error_messages = {"invalid": "true or false is expected, not {found}."}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", found=json_type(data))
        return data


class StrictChoiceField(serializers.ChoiceField):
    """One of a few strings. The message lists them, and does not repeat what was sent."""

    default_error_messages = {
        "invalid": "A string is expected, not {found}.",
        "invalid_choice": "It is one of: {choices}.",
    }

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid", found=json_type(data))
        if data not in self.choice_strings_to_values and not (data == "" and self.allow_blank):
            self.fail("invalid_choice", choices=", ".join(self.choice_strings_to_values))
        return super().to_internal_value(data)


class StrictUUIDField(serializers.UUIDField):
    """A UUID, written as a string."""

    default_error_messages = {"invalid": "It is not a valid UUID."}

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class StrictJSONField(serializers.JSONField):
    """Any JSON that can be stored: its numbers are finite, and its strings hold no NUL and no half pairs."""

    default_error_messages = {
        "not_finite": StrictFloatField.default_error_messages["not_finite"],
        "null_character": StrictCharField.default_error_messages["null_character"],
        "surrogate": StrictCharField.default_error_messages["surrogate"],
    }

    def to_internal_value(self, data: Any) -> Any:
        self._check(data)
        return super().to_internal_value(data)

    def _check(self, data: Any) -> None:
        if isinstance(data, str):
            _check_characters(self, data)
        elif isinstance(data, float) and not math.isfinite(data):
            self.fail("not_finite")
        elif isinstance(data, list):
            for item in data:
                self._check(item)
        elif isinstance(data, dict):
            for name, value in data.items():
                self._check(name)
                self._check(value)


class StrictPrimaryKeyRelatedField(serializers.PrimaryKeyRelatedField):
    """The id of a row. Whether a row is unknown or out of reach is not told."""

    default_error_messages = {
        "does_not_exist": "There is no such object.",
        "incorrect_type": "This is not an id.",
    }

    def to_internal_value(self, data: Any) -> Any:
        if not _is_key(data):
            self.fail("incorrect_type")
        return super().to_internal_value(data)


class StrictSlugRelatedField(serializers.SlugRelatedField):
    """The name of a row."""

    default_error_messages = {
        "does_not_exist": "There is no such object.",
        "invalid": "This is not a name.",
    }

    def to_internal_value(self, data: Any) -> Any:
        if not _is_key(data):
            self.fail("invalid")
        return super().to_internal_value(data)


class RefusesUnknownFields(serializers.Serializer):
    """Refuses each field that it does not have, or that only the server sets, beside all that is wrong."""

    default_error_messages = {
        "invalid": "An object is expected, not {datatype}.",
        "unknown_field": "There is no such field.",
        "read_only_field": "This field cannot be set.",
    }

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, Mapping):
            message = self.error_messages["invalid"].format(datatype=json_type(data))
            raise serializers.ValidationError({api_settings.NON_FIELD_ERRORS_KEY: [message]}, code="invalid")
        surplus = self._surplus(data)
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            raise serializers.ValidationError({**cast(dict[str, Any], error.detail), **surplus}) from error
        if surplus:
            raise serializers.ValidationError(surplus)
        return value

    def save(self, **kwargs: Any) -> Any:
        raise NotImplementedError("Serializers do not write: call a service with `validated_data`.")

    def _surplus(self, data: Mapping[str, Any]) -> dict[str, list[ErrorDetail]]:
        accepted = {
            field.field_name
            for field in self._writable_fields
            if not isinstance(field, serializers.HiddenField)
        }
        read_only = {field.field_name for field in self.fields.values() if field.read_only}
        return {
            name: [ErrorDetail(str(self.error_messages[code]), code=code)]
            for name in data
            if name not in accepted
            for code in ["read_only_field" if name in read_only else "unknown_field"]
        }


class StrictSerializer(RefusesUnknownFields):
    """The base of serializers that describe a body."""


class StrictFormSerializer(StrictSerializer):
    """The base of serializers that describe a form. Each field may be sent once, but for those in ``many_valued``."""

    many_valued: frozenset[str] = frozenset()

    def to_internal_value(self, data: Any) -> Any:
        lists = data.lists() if isinstance(data, MultiValueDict) else ()  # a request without a body has none
        repeated = [name for name, values in lists if name not in self.many_valued and len(values) > 1]
        if repeated:
            raise serializers.ValidationError(
                {name: ["This may be sent once."] for name in repeated}, code="repeated"
            )
        return super().to_internal_value(data)


class StrictModelSerializer(RefusesUnknownFields, serializers.ModelSerializer):
    """The base of serializers that describe a row, with the strict fields for its columns."""

    serializer_field_mapping = {
        **serializers.ModelSerializer.serializer_field_mapping,
        models.AutoField: StrictIntegerField,
        models.BigAutoField: StrictIntegerField,
        models.BigIntegerField: StrictIntegerField,
        models.BooleanField: StrictBooleanField,
        models.CharField: StrictCharField,
        models.FloatField: StrictFloatField,
        models.IntegerField: StrictIntegerField,
        models.JSONField: StrictJSONField,
        models.PositiveBigIntegerField: StrictIntegerField,
        models.PositiveIntegerField: StrictIntegerField,
        models.PositiveSmallIntegerField: StrictIntegerField,
        models.SmallIntegerField: StrictIntegerField,
        models.TextField: StrictCharField,
        models.UUIDField: StrictUUIDField,
    }
    serializer_choice_field = StrictChoiceField
    serializer_related_field = StrictPrimaryKeyRelatedField
    serializer_related_to_field = StrictSlugRelatedField


def _check_characters(field: serializers.Field, text: str) -> None:
    if found := UNSTORABLE.search(text):
        field.fail("null_character" if found[0] == "\x00" else "surrogate")


def _is_key(data: Any) -> bool:
    """Tell whether a value can be looked up: a whole number, or a string that a database can be asked for."""
    if isinstance(data, str):
        return not UNSTORABLE.search(data)
    return isinstance(data, int) and not isinstance(data, bool)


class ToldInPart(serializers.Serializer):
    """Tells everybody the fields in ``Meta.public_fields``, and the others only to those who see everything.

    Whether somebody does stands in the context as ``sees_everything``; where it does not, nobody does. In the schema the
    others need not be there.
    """

    def get_fields(self) -> dict[str, serializers.Field]:
        fields = super().get_fields()
        if self.context.get("sees_everything"):
            return fields
        public = self.Meta.public_fields  # type: ignore[attr-defined]
        return {name: field for name, field in fields.items() if name in public}
