"""What the OpenAPI schema says of every operation, so that no view has to: its failures and its sign-in."""

from typing import Any

from drf_spectacular import authentication, openapi
from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerExtension
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS, AllowAny

from imagehub.api.permissions import StaffOrReadOnly
from imagehub.api.problems import CONTENT_TYPE


class ProblemErrorSerializer(serializers.Serializer):
    """One thing that is wrong with a request."""

    pointer = serializers.CharField(help_text="Where, as a JSON pointer (RFC 6901).", allow_blank=True)
    code = serializers.CharField(help_text="What, for programs.")
    detail = serializers.CharField(help_text="What, for people.")


class ProblemSerializer(serializers.Serializer):
    """Why a request failed (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    instance = serializers.CharField(help_text="The path that was asked for.")
    code = serializers.CharField(help_text="What happened, for programs.")
    request_id = serializers.CharField(help_text="The same as in the header `X-Request-ID`.")
    errors = ProblemErrorSerializer(many=True, required=False, help_text="For invalid fields.")  # type: ignore[assignment]
    limit = serializers.IntegerField(required=False, help_text="How many there may be, for 429.")
    window_seconds = serializers.IntegerField(required=False, help_text="In how many seconds, for 429.")
    retry_after = serializers.IntegerField(required=False, help_text="Seconds to wait, for 429.")


def problem(status: int) -> dict[tuple[int, str], type[ProblemSerializer]]:
    """Return the declaration of a failure that a view adds to those every operation has."""
    return {(status, CONTENT_TYPE): ProblemSerializer}


RATE_LIMIT_HEADERS = {
    "RateLimit-Limit": "How many there may be in one window of time.",
    "RateLimit-Remaining": "How many are left in this one.",
    "RateLimit-Reset": "Seconds until the next one begins.",
}
RETRY_AFTER = {"Retry-After": "Seconds to wait."}


class TokenScheme(OpenApiAuthenticationExtension):
    target_class = "imagehub.api.authentication.TokenAuthentication"
    name = "bearerAuth"

    def get_security_definition(self, auto_schema: openapi.AutoSchema) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer"}


class SessionScheme(authentication.SessionScheme):
    target_class = "imagehub.api.authentication.SessionAuthentication"


class ToldInPartExtension(OpenApiSerializerExtension):
    """Describes all fields, of which only those that everybody is told are always there."""

    target_class = "imagehub.api.serializers.ToldInPart"
    match_subclasses = True

    def map_serializer(self, auto_schema: openapi.AutoSchema, direction: Any) -> dict[str, Any]:
        self.target._context = {"sees_everything": True}
        schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        public = self.target.Meta.public_fields
        for name, field in schema["properties"].items():
            if name not in public:
                field["description"] = " ".join(filter(None, (field.get("description"), "Staff only.")))
        schema["required"] = [name for name in schema.get("required", ()) if name in public]
        return schema


class AutoSchema(openapi.AutoSchema):
    """Adds the failures that an operation can have by what it is. Others are declared with the view."""

    def get_auth(self) -> list[dict[str, Any]]:
        return [*super().get_auth(), *([{}] if self._is_open_to_all(StaffOrReadOnly) else [])]

    def _get_parameters(self) -> list[dict[str, Any]]:
        self._parameters = super()._get_parameters()
        return self._parameters

    def _get_request_body(self, direction: Any = "request") -> dict[str, Any] | None:
        """Also describe the body of a DELETE, where ``extend_schema`` names one: OpenAPI 3.1 allows it."""
        serializer = self.get_request_serializer() if self.method == "DELETE" else None
        if not isinstance(serializer, type):
            return super()._get_request_body(direction)
        schema, _ = self._get_request_for_media_type(serializer, direction)
        return {"content": {"application/json": {"schema": schema}}, "required": True}

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies = super()._get_response_bodies(direction)
        if direction != "response":
            return bodies
        for code, description in self._failures().items():
            response = OpenApiResponse(ProblemSerializer, description=description)
            bodies.setdefault(code, self._get_response_for_code(response, code, [CONTENT_TYPE]))
        return bodies

    def _get_response_headers_for_code(self, status_code: str, direction: Any = "response") -> dict[str, Any]:
        headers = super()._get_response_headers_for_code(status_code, direction)
        descriptions = {
            **(RATE_LIMIT_HEADERS if status_code.startswith("2") or status_code == "429" else {}),
            **(RETRY_AFTER if status_code == "429" else {}),
        }
        if self._is_rate_limited():
            headers |= {
                name: {"schema": {"type": "integer"}, "description": description}
                for name, description in descriptions.items()
            }
        return headers

    def _failures(self) -> dict[str, str]:
        is_safe = self.method in SAFE_METHODS
        has_query = any(parameter["in"] == "query" for parameter in self._parameters)
        is_open = self._is_open_to_all(AllowAny, StaffOrReadOnly)
        failures = {
            "400": ("Something is invalid.", has_query or not is_safe),
            "401": ("Not signed in, or the token is no good.", bool(self.view.get_authenticators())),
            "403": ("Not allowed.", not is_open or not is_safe),
            "404": ("There is no such object.", "{" in self.path),
            "429": ("Too many, too soon.", self._is_rate_limited()),
            "default": ("Any other failure.", True),
        }
        return {code: description for code, (description, fits) in failures.items() if fits}

    def _is_rate_limited(self) -> bool:
        return bool(getattr(self.view, "rate_limit", "")) and self.method not in SAFE_METHODS

    def _is_open_to_all(self, *kinds: type) -> bool:
        """Tell whether permissions of these kinds let everybody do this."""
        permissions = self.view.get_permissions()
        return all(
            isinstance(permission, kinds)
            and (self.method in SAFE_METHODS or isinstance(permission, AllowAny))
            for permission in permissions
        )
