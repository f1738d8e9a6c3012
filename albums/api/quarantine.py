"""Reading the form of an upload: each file goes straight to the disk, into a folder that nobody else can read."""

import os
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest, QueryDict, UnreadablePostError
from django.http.multipartparser import MultiPartParser, MultiPartParserError
from django.utils.datastructures import MultiValueDict
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser, DataAndFiles
from rest_framework.request import Request

from albums.decoding import PictureTooLarge
from albums.services.file_names import safe_file_name
from albums.services.uploads import IncomingFile
from imagehub import storage
from imagehub.api.problems import ContentTooLarge
from imagehub.config_schema import UploadsConfig
from imagehub.errors import Invalid

FILE_MODE = 0o600


class RequestTimeout(APIException):
    status_code = 408
    default_code = "timeout"
    default_detail = "The body did not come in time."


class ReceivesUploads(Protocol):
    """What a view tells the parser: where files go, and how many of which size may come."""

    quarantine: Path
    limits: UploadsConfig
    file_field: str
    """The one field of the form that takes files."""


class QuarantineHandler(FileUploadHandler):
    """Writes the files of a form into a folder, in the order in which they come. No byte of them stays in memory.

    Of a file that is too large only the refusal is kept. Files under other names are noted and not written.
    """

    chunk_size = 256 * 1024

    def __init__(self, folder: Path, limits: UploadsConfig, file_field: str) -> None:
        super().__init__()
        self.files: list[IncomingFile] = []
        self.misplaced: list[str] = []
        self.is_complete = True
        self._folder = folder
        self._limits = limits
        self._file_field = file_field
        self._target: BinaryIO | None = None
        self._size = 0

    def new_file(self, field_name: str, file_name: str, content_type: str, *args: Any, **kwargs: Any) -> None:
        """Make room for a file.

        Raises:
            Invalid: there are too many.
        """
        if field_name != self._file_field:
            self.misplaced.append(field_name)
            return
        if len(self.files) >= self._limits.max_files:
            raise Invalid(
                f"At most {self._limits.max_files} files may come in one request.",
                pointer=f"/{self._file_field}",
                code="too_many_files",
            )
        path = self._folder / f"{len(self.files):04d}"
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE
        )
        self._target, self._size = os.fdopen(descriptor, "wb"), 0
        self.files.append(IncomingFile(path, safe_file_name(file_name), content_type))

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """Write a part of a file, or drop it.

        Raises:
            StorageFull: the disk is full.
        """
        if self._target is None:
            return
        self._size += len(raw_data)
        if self._size > self._limits.max_file_bytes:
            self.files[-1].refusal = PictureTooLarge(
                f"A file may have {self._limits.max_file_bytes:,} bytes at most."
            )
            self.close()
            self.files[-1].path.unlink()
            return
        with storage.naming_a_full_disk():
            self._target.write(raw_data)

    def file_complete(self, file_size: int) -> None:
        """Finish a file.

        Raises:
            StorageFull: the disk is full.
        """
        with storage.naming_a_full_disk():
            self.close()

    def upload_interrupted(self) -> None:
        self.is_complete = False

    def close(self) -> None:
        target, self._target = self._target, None
        if target is not None:
            target.close()


class FormParser(MultiPartParser):
    """Django's, with file names as they were sent: what is left of them is our own decision."""

    def sanitize_file_name(self, file_name: str) -> str:
        return file_name


class QuarantineParser(BaseParser):
    """Reads the form of an upload for a view that :class:`ReceivesUploads`.

    The files come as :class:`IncomingFile`, and so does whatever was sent as a file under another name: no field
    takes it.
    """

    media_type = "multipart/form-data"

    def parse(
        self,
        stream: IO[bytes] | HttpRequest,
        media_type: str | None = None,
        parser_context: Any = None,
    ) -> DataAndFiles:
        """Return the fields and files of the form.

        Raises:
            Invalid: there are too many files.
            ParseError: it is no form, or ends too soon.
            RequestTimeout: the client stopped sending.
            StorageFull: the disk is full.
        """
        view: ReceivesUploads = parser_context["view"]
        handler = QuarantineHandler(view.quarantine, view.limits, view.file_field)
        meta = parser_context["request"].META | {"CONTENT_TYPE": media_type}
        try:
            fields, _ = FormParser(meta, stream, [handler], parser_context["encoding"]).parse()
        except MultiPartParserError as error:
            raise ParseError(f"The body is no form: {error}") from error
        except UnreadablePostError as error:
            if isinstance(error.__cause__, TimeoutError):
                raise RequestTimeout from error
            raise
        finally:
            handler.close()
        if not handler.is_complete:
            raise ParseError("The body ends before its last file does.")
        return DataAndFiles(
            _with_misplaced(fields, handler), MultiValueDict({view.file_field: handler.files})
        )


def check_declared_length(request: Request, most: int) -> None:
    """Refuse a body by what its head says of it, before any of it is read.

    Raises:
        ContentTooLarge: it has more bytes than ``most``.
        StorageFull: there is no room for it.
    """
    length = str(request.META.get("CONTENT_LENGTH", ""))
    declared = int(length) if length.isdecimal() else 0
    if declared > most:
        raise ContentTooLarge(f"A request may have {most:,} bytes at most.", "too_large")
    storage.require_space(declared)


def _with_misplaced(fields: QueryDict, handler: QuarantineHandler) -> QueryDict:
    fields = fields.copy()
    for name in handler.misplaced:
        fields.appendlist(name, IncomingFile(Path(), ""))
    return fields
