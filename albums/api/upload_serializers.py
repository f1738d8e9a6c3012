from functools import cache
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from albums.api.image_serializers import StaffImageSerializer
from albums.models import Album, AlbumQuerySet, Visibility
from albums.services.uploads import IncomingFile
from imagehub.api.schema import ProblemSerializer
from imagehub.api.serializers import (
    StrictChoiceField,
    StrictFormSerializer,
    StrictPrimaryKeyRelatedField,
    StrictSerializer,
)

NOT_STORED = {"code": "not_stored", "detail": "Another file was refused, and all or none were to be stored."}

REFUSED = {
    400: "The form is not valid.",
    413: "The request, or the first file, has too many bytes.",
    415: "This is no form, or the first file is of no kind that is accepted.",
    422: "The first file is damaged or beyond a limit, or the disk is full.",
}
"""What an upload that stores nothing is answered with."""


class UploadQuerySerializer(StrictSerializer):
    atomic = serializers.ChoiceField(
        [("0", "each file for itself"), ("1", "all of the files, or none of them")],
        default="0",
        help_text="What is stored.",
    )


@extend_schema_field(OpenApiTypes.BINARY)
class FileField(serializers.Field):
    """A file that the parser has put into quarantine."""

    default_error_messages = {"invalid": "A file is expected."}

    def to_internal_value(self, data: Any) -> IncomingFile:
        if not isinstance(data, IncomingFile):
            self.fail("invalid")
        return data


@extend_schema_field(OpenApiTypes.UUID)
class VisibleAlbumField(StrictPrimaryKeyRelatedField):
    """The id of an album that the caller may see. An unknown one and a hidden one are told apart by nobody."""

    def get_queryset(self) -> AlbumQuerySet:
        return Album.objects.visible_to(self.context["request"].user)


class UploadSerializer(StrictFormSerializer):
    """The form of an upload."""

    many_valued = frozenset({"files"})

    files = serializers.ListField(child=FileField(), allow_empty=False)
    album = VisibleAlbumField(required=False, help_text="Where the images are appended.")
    visibility = StrictChoiceField(Visibility.choices, default=Visibility.PRIVATE)


class UploadErrorSerializer(StrictSerializer):
    """Why a file was refused."""

    code = serializers.CharField(help_text="What, for programs.")
    detail = serializers.CharField(help_text="What, for people.")


@cache
def _image_serializer() -> StaffImageSerializer:
    """Build the serializer of images once: to build it costs more than all that it does for one upload."""
    return StaffImageSerializer()


class UploadResultSerializer(StrictSerializer):
    """What became of one file: it has an image or an error."""

    name = serializers.CharField(help_text="What the file was called.")
    image = StaffImageSerializer(required=False)
    error = UploadErrorSerializer(required=False)

    def to_representation(self, file: IncomingFile) -> dict[str, Any]:
        if file.image:
            return {"name": file.name, "image": _image_serializer().to_representation(file.image)}
        refusal = file.refusal
        error = {"code": refusal.code, "detail": str(refusal)} if refusal else NOT_STORED
        return {"name": file.name, "error": error}


class UploadedSerializer(StrictSerializer):
    """What became of the files, in the order in which they were sent."""

    results = UploadResultSerializer(many=True)


class RefusedUploadSerializer(ProblemSerializer):
    """Why nothing was stored. The code and detail are those of the first file that was refused."""

    results = UploadResultSerializer(
        many=True, required=False, help_text="What became of each file, where the form itself was in order."
    )
