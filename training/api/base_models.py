"""Which base model a request means."""

from typing import Any

from rest_framework import serializers

from imagehub.api.serializers import StrictSerializer, StrictSlugRelatedField
from imagehub.config import get_config
from training.models import BaseModel


class BaseModelChoiceSerializer(StrictSerializer):
    """A request that names a base model; one that names none means the default one."""

    base_model = StrictSlugRelatedField(
        "name",
        queryset=BaseModel.objects.enabled(),
        required=False,
        help_text="Name of the base model. Default: the one that is configured.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "base_model" not in attrs:
            name = get_config().generation.default_model
            attrs["base_model"] = BaseModel.objects.enabled().filter(name=name).first()
            if attrs["base_model"] is None:
                raise serializers.ValidationError(
                    {"base_model": "The default base model is not available: name one."}
                )
        return attrs
