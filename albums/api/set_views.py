"""What an album that is a set template can do besides: show its prompts, and give and take its rows as a file."""

import codecs
from typing import IO, Any

from django.http import HttpResponse
from django.utils.http import content_disposition_header, parse_header_parameters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiRequest, extend_schema
from rest_framework import parsers, viewsets
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.response import Response

from albums.api.files import AnswersFiles, file_name
from albums.api.set_serializers import (
    CsvFileSerializer,
    RenderedSetSerializer,
    RenderQuerySerializer,
    SetRowsSerializer,
)
from albums.models import Album, AlbumQuerySet
from albums.set_templates import preview_set
from albums.set_templates.csv_rows import MAX_BYTES, columns_of, read_rows, write_rows
from albums.set_templates.services import replace_rows
from imagehub.api.filters import refuse_unknown_parameters
from imagehub.api.permissions import StaffOnly
from imagehub.api.problems import ContentTooLarge
from imagehub.api.schema import problem
from imagehub.context import hide
from imagehub.errors import Invalid

CSV = "text/csv"
ENVELOPE_BYTES = 16 * 1024
"""What a form may need around the file that it carries."""


class CsvParser(parsers.BaseParser):
    """Takes a CSV file that is the whole body, up to its limit."""

    media_type = CSV

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        """Return the bytes of the file.

        Raises:
            ContentTooLarge: there are more than a file may have.
            UnsupportedMediaType: it declares another encoding than UTF-8.
        """
        _, parameters = parse_header_parameters(media_type or "")
        if not _is_utf8(parameters.get("charset", "utf-8")):
            raise UnsupportedMediaType(media_type or CSV, "CSV is read as UTF-8 only.")
        data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ContentTooLarge
        return data


class SetViewSet(AnswersFiles, viewsets.GenericViewSet[Album]):
    """Work on an album that is a set template. Staff only, for prompts are staff's."""

    permission_classes = [StaffOnly]
    serializer_class = SetRowsSerializer
    parser_classes = [CsvParser, parsers.MultiPartParser]
    file_actions = frozenset({"download_rows"})

    def get_queryset(self) -> AlbumQuerySet:
        return Album.objects.visible_to(self.request.user)

    @extend_schema(
        operation_id="albums_render",
        parameters=[RenderQuerySerializer],
        responses={200: RenderedSetSerializer, **problem(409), **problem(422)},
        filters=False,
    )
    def render_prompts(self, request: Request, pk: Any) -> Response:
        """Show the names and prompts of a set, in the order of its rows.

        Without a theme it is the set's own example. A theme with which a prompt grows too long is refused, and so is a set
        that names adapters which are not there, or not enabled: 422 `adapter_missing`.
        """
        hide(request.query_params.get("theme", ""))
        album = self.get_object()
        refuse_unknown_parameters(request, known={"theme"})
        # A plain dict: in a form, which this is none, an empty field would count as one left out.
        query = RenderQuerySerializer(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        items = preview_set(album, query.validated_data.get("theme"))
        return Response(RenderedSetSerializer({"results": items}).data)

    @extend_schema(operation_id="albums_rows_csv_retrieve", responses={(200, CSV): OpenApiTypes.STR})
    def download_rows(self, request: Request, pk: Any) -> HttpResponse:
        """Download the rows of a set as a CSV file (UTF-8).

        A cell that a spreadsheet would compute gets an apostrophe in front, which goes when the file is uploaded.
        """
        album = self.get_object()
        response = HttpResponse(write_rows(album.set_rows), content_type=f"{CSV}; charset=utf-8")
        name = file_name(album.name, ".csv")
        response["Content-Disposition"] = content_disposition_header(True, name)  # noqa: FBT003
        return response

    @extend_schema(
        operation_id="albums_rows_csv_update",
        request={
            CSV: OpenApiRequest(OpenApiTypes.STR),
            "multipart/form-data": CsvFileSerializer,
        },
        responses={200: SetRowsSerializer, **problem(409), **problem(413), **problem(415)},
    )
    def upload_rows(self, request: Request, pk: Any) -> Response:
        """Replace the rows of a set by those of a CSV file of at most 1 MiB: the body itself, or `file` of a form.

        The first line names the columns. With these rows a set template has to be valid.
        """
        album = self.get_object()
        rows = read_rows(self._file(request))
        hide(*(cell for row in rows for cell in row.values()))
        replace_rows(album, rows)
        return Response(
            SetRowsSerializer(
                {"template_item_count": len(rows), "columns": columns_of(rows), "set_rows": rows}
            ).data
        )

    @staticmethod
    def _file(request: Request) -> bytes:
        length = request.META.get("CONTENT_LENGTH") or "0"
        if length.isdecimal() and int(length) > MAX_BYTES + ENVELOPE_BYTES:
            raise ContentTooLarge
        if isinstance(request.data, bytes):
            return request.data
        if len(request.FILES) > 1 or len(request.FILES.getlist("file")) > 1:
            raise Invalid("One file is expected.", pointer="/file")
        form = CsvFileSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        file = form.validated_data["file"]
        if file.size > MAX_BYTES:
            raise ContentTooLarge
        return file.read()


def _is_utf8(encoding: str) -> bool:
    try:
        return codecs.lookup(encoding).name in {"utf-8", "ascii"}
    except (LookupError, ValueError):
        return False
