"""``POST /api/images/upload``: pictures from strangers, each with an answer of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from albums.api.quarantine import QuarantineParser, check_declared_length
from albums.api.upload_serializers import (
    REFUSED,
    RefusedUploadSerializer,
    UploadedSerializer,
    UploadQuerySerializer,
    UploadSerializer,
)
from albums.decoding import ImpossiblePicture, PictureRefused, PictureTooLarge, UnsupportedPicture
from albums.models import Image
from albums.services.uploads import IncomingFile, quarantine, take_in_pictures
from imagehub.api.permissions import StaffOnly
from imagehub.api.problems import ProblemResponse, problem_of
from imagehub.api.schema import problem
from imagehub.api.throttling import RateLimitedMixin
from imagehub.concurrency import hold_slot
from imagehub.config import get_config
from imagehub.config_schema import UploadsConfig

SLOT_SECONDS = 3600
"""Longer than a client that never pauses for long can take for the largest form."""

STATUSES: dict[type[PictureRefused], int] = {
    UnsupportedPicture: status.HTTP_415_UNSUPPORTED_MEDIA_TYPE,
    PictureTooLarge: status.HTTP_413_REQUEST_ENTITY_TOO_LARGE,
    ImpossiblePicture: status.HTTP_422_UNPROCESSABLE_ENTITY,
}


class UploadView(RateLimitedMixin, APIView):
    """Upload pictures.

    Each file is answered for itself, in the order sent: one that is refused does not hinder the others, unless
    `atomic=1`. Only PNG, JPEG and WebP are taken, and the ending of the name, the declared type and the bytes must
    agree. What is stored has no more in it than a picture needs: places, cameras and comments are gone.
    """

    permission_classes = [StaffOnly]
    parser_classes = [QuarantineParser]
    rate_limit = "upload"
    charges_before_body = True
    file_field = "files"

    quarantine: Path
    limits: UploadsConfig

    @extend_schema(
        operation_id="images_upload",
        parameters=[UploadQuerySerializer],
        request={"multipart/form-data": UploadSerializer},
        responses={
            201: OpenApiResponse(UploadedSerializer, "At least one was stored."),
            **{
                (code, "application/problem+json"): OpenApiResponse(RefusedUploadSerializer, description)
                for code, description in REFUSED.items()
            },
            **problem(408),
            **problem(409),
        },
    )
    def post(self, request: Request) -> Response | ProblemResponse:
        query = UploadQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        self.limits = get_config().uploads
        check_declared_length(request, self.limits.max_request_bytes)
        with (
            hold_slot(f"upload:{request.user.pk}", self.limits.at_once, SLOT_SECONDS),
            quarantine() as self.quarantine,
        ):
            form = UploadSerializer(data=request.data, context={"request": request})
            form.is_valid(raise_exception=True)
            files: list[IncomingFile] = form.validated_data["files"]
            take_in_pictures(
                files,
                staging=self.quarantine,
                new_image=lambda _: Image(
                    owner=request.user,
                    visibility=form.validated_data["visibility"],
                    source_kind=Image.SourceKind.UPLOAD,
                ),
                album=form.validated_data.get("album"),
                all_or_nothing=query.validated_data["atomic"] == "1",
            )
        return self._answer(files)

    def _answer(self, files: Sequence[IncomingFile]) -> Response | ProblemResponse:
        results: dict[str, Any] = UploadedSerializer({"results": files}).data
        if any(file.image for file in files):
            return Response(results, status=status.HTTP_201_CREATED)
        refusal = next(file.refusal for file in files if file.refusal)
        refused = problem_of(refusal, self.request, status=_status_of(refusal))
        return ProblemResponse({**refused, **results})


def _status_of(refusal: PictureRefused) -> int:
    return next(code for kind, code in STATUSES.items() if isinstance(refusal, kind))
