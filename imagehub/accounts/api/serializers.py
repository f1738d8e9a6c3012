from rest_framework import serializers

from imagehub.accounts.models import ApiToken, AuditEntry, Scope
from imagehub.api.serializers import (
    StrictCharField,
    StrictChoiceField,
    StrictModelSerializer,
    StrictSerializer,
)


class NewTokenSerializer(StrictSerializer):
    """The body of ``POST /api/auth/tokens``."""

    name = StrictCharField(max_length=100, help_text="What it is for.")
    scopes = serializers.ListField(
        child=StrictChoiceField(choices=Scope.choices),
        min_length=1,
        max_length=len(Scope),
        help_text="What it may be used for. Each lets it read, too; `admin` is everything its user may do.",
    )
    expires_at = serializers.DateTimeField(
        required=False, allow_null=True, default=None, help_text="null: it does not expire."
    )

    def validate_scopes(self, value: list[str]) -> list[Scope]:
        if len(set(value)) < len(value):
            raise serializers.ValidationError("Each scope is named once.", code="repeated")
        return [Scope(name) for name in value]


class TokenSerializer(StrictModelSerializer):
    """An API token, without its secret: that is stored nowhere."""

    scopes = serializers.ListField(child=serializers.ChoiceField(choices=Scope.choices), read_only=True)
    revoked = serializers.SerializerMethodField()

    class Meta:
        model = ApiToken
        fields = ["id", "name", "prefix", "scopes", "created_at", "expires_at", "last_used_at", "revoked"]
        read_only_fields = fields

    def get_revoked(self, token: ApiToken) -> bool:
        return token.revoked_at is not None


class CreatedTokenSerializer(TokenSerializer):
    """A new API token with its secret, which is shown this once."""

    token = serializers.CharField(help_text="The secret. It cannot be had again.")

    class Meta(TokenSerializer.Meta):
        fields = [*TokenSerializer.Meta.fields, "token"]
        read_only_fields = fields


class AuditTargetSerializer(StrictSerializer):
    """The row that was changed. It may be gone by now."""

    type = serializers.CharField(source="target_type")
    id = serializers.CharField(source="target_id")
    label = serializers.CharField(source="target_label")


class AuditEntrySerializer(StrictModelSerializer):
    """Who did what. Prompts, captions and secrets are there as their length and the start of their SHA-256."""

    actor = serializers.CharField(source="actor_name", help_text="Empty: nobody who is known here.")
    target = AuditTargetSerializer(source="*", read_only=True)

    class Meta:
        model = AuditEntry
        fields = ["id", "at", "actor", "via", "action", "target", "address", "request_id", "before", "after"]
        read_only_fields = fields
