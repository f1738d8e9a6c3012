"""Files in a bucket of an S3-compatible service, through django-storages. Imported only where that is configured."""

import fcntl
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files import File
from storages.backends.s3 import S3Storage

from imagehub.storage.disk import CHUNK_BYTES, PART_BYTES, Disk
from imagehub.storage.media_folder import gate, path_of
from imagehub.storage.names import FoundFile, StorageUnreachable, StoredFile, safe_parts
from imagehub.storage.staging import STAGING

AT_ONCE = 10
"""As many connections as boto's client keeps."""

CLOCK_STEP = timedelta(seconds=1)
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 5, 30, 3


class MediaBucket(S3Storage):
    """django-storages' S3, with the patience we have and without what only Amazon understands."""

    def __init__(self, *, public_endpoint: str = "", **options: Any) -> None:
        self.public_endpoint = public_endpoint
        self.options = options
        client = Config(
            signature_version="s3v4",
            s3={"addressing_style": options["addressing_style"]},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            # Other services than Amazon's do not all know the new checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        defaults = {
            "client_config": client,
            "transfer_config": TransferConfig(use_threads=False),
            "max_memory_size": CHUNK_BYTES,  # what is larger is spooled to the disk
            "file_overwrite": True,
            "querystring_auth": True,
        }
        super().__init__(**defaults | options)

    @cached_property
    def connection(self) -> Any:
        """One for all threads, which its client allows: django-storages would make one for each, at 0.2 s apiece."""
        return super().connection

    @property
    def client(self) -> Any:
        return self.connection.meta.client

    def key(self, name: str) -> dict[str, str]:
        """Return how a stored file is addressed."""
        return {"Bucket": self.bucket_name, "Key": self._normalize_name("/".join(safe_parts(name)))}

    @cached_property
    def signer(self) -> S3Storage:
        """What signs addresses: they name the host by which browsers reach the service."""
        if not self.public_endpoint:
            return self
        return MediaBucket(**self.options | {"endpoint_url": self.public_endpoint, "location": self.location})


class Bucket:
    """The store in a bucket. See :mod:`imagehub.storage` for what each of these promises.

    A write is one request, so nobody ever meets half a file. Deletions and additions exclude each other by the lock of
    the media root, that is, among the processes of one machine.
    """

    is_local = False

    def __init__(self, bucket: MediaBucket) -> None:
        self.bucket = bucket

    def problem(self) -> str:
        if sentence := Disk().problem():
            return sentence
        try:
            with _asking():
                self.bucket.client.head_bucket(Bucket=self.bucket.bucket_name)
        except (StorageUnreachable, FileNotFoundError):
            return "The bucket cannot be reached."
        return ""

    def location_of(self, name: str) -> str:
        key = self.bucket.key(name)
        return f"s3://{key['Bucket']}/{key['Key']}"

    def exists(self, name: str) -> bool:
        return self._head(name) is not None

    def missing(self, names: set[str]) -> set[str]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return {
                name for name, there in zip(names, pool.map(self.exists, names), strict=True) if not there
            }

    def size(self, name: str) -> int:
        return self._require(name)["ContentLength"]

    def open(self, name: str) -> BinaryIO:
        safe_parts(name)
        with _asking():
            file = self.bucket.open(name, "rb")
            _ = file.file  # fetched now, while failures still get their names
        return cast(BinaryIO, file)

    def read_part(self, name: str, wanted: range) -> Iterator[bytes]:
        key = self.bucket.key(name)
        if not wanted:
            return iter(())
        with _asking():
            found = self.bucket.client.get_object(**key, Range=f"bytes={wanted.start}-{wanted.stop - 1}")
        return _body(found["Body"])

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        key = self.bucket.key(name)
        folder = path_of(STAGING)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="copy-", suffix=Path(name).suffix) as copy:
            with _asking():
                self.bucket.client.download_fileobj(**key, Fileobj=copy, Config=self.bucket.transfer_config)
            copy.flush()
            yield Path(copy.name)

    def signed_url(self, name: str, *, content_type: str, disposition: str, cache_control: str) -> str | None:
        safe_parts(name)
        return self.bucket.signer.url(
            name,
            parameters={
                "ResponseContentType": content_type,
                "ResponseContentDisposition": disposition,
                "ResponseCacheControl": cache_control,
            },
        )

    def store(self, stored: StoredFile, data: bytes) -> None:
        with gate(fcntl.LOCK_SH):
            if not self._touched(stored):
                self._put(stored.name, BytesIO(data))

    def adopt(self, stored: StoredFile, path: Path, source: BinaryIO) -> None:
        with gate(fcntl.LOCK_SH):
            if not self._touched(stored):
                source.seek(0)
                self._put(stored.name, source)
        path.unlink()

    def write(self, name: str, data: bytes) -> None:
        safe_parts(name)
        with gate(fcntl.LOCK_SH):
            self._put(name, BytesIO(data))

    def delete(self, name: str, *, untouched_for: timedelta | None) -> bool:
        return bool(self.delete_all([name], untouched_for=untouched_for))

    def delete_all(self, names: Collection[str], *, untouched_for: timedelta | None) -> set[str]:
        keys = {name: self.bucket.key(name) for name in names}
        with gate(fcntl.LOCK_EX), ThreadPoolExecutor(AT_ONCE) as pool:
            deleted = pool.map(lambda name: self._delete(name, keys[name], untouched_for), keys)
            return {name for name, is_deleted in zip(keys, deleted, strict=True) if is_deleted}

    def walk(self, area: str) -> Iterator[FoundFile]:
        prefix = self.bucket.key(area)["Key"] + "/"
        pages = self.bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket.bucket_name, Prefix=prefix
        )
        with _asking():
            for page in pages:
                for found in page.get("Contents", ()):
                    name = f"{area}/{found['Key'].removeprefix(prefix)}"
                    yield FoundFile(name, found["Size"], found["LastModified"].timestamp())

    def _delete(self, name: str, key: dict[str, str], untouched_for: timedelta | None) -> bool:
        found = self._head(name)
        if found is None or (untouched_for and _age(found) < untouched_for):
            return False
        with _asking():
            self.bucket.client.delete_object(**key)
        return True

    def _touched(self, stored: StoredFile) -> bool:
        """Tell whether the bucket has the file already, and make it new if so: copied onto itself, it is."""
        found = self._head(stored.name)
        if found is None or found["ContentLength"] != stored.size_bytes:
            return False
        key = self.bucket.key(stored.name)
        with _asking():
            self.bucket.client.copy_object(
                **key, CopySource=key, MetadataDirective="REPLACE", ContentType=found["ContentType"]
            )
        return True

    def _put(self, name: str, source: BinaryIO) -> None:
        with _asking():
            self.bucket.save(name, File(source))

    def _head(self, name: str) -> dict[str, Any] | None:
        try:
            return self._require(name)
        except FileNotFoundError:
            return None

    def _require(self, name: str) -> dict[str, Any]:
        key = self.bucket.key(name)
        with _asking():
            return cast(dict[str, Any], self.bucket.client.head_object(**key))


def _age(found: dict[str, Any]) -> timedelta:
    """Return for how long at least a file has been as it is, by the bucket's own clock, which counts whole seconds."""
    now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
    return now - found["LastModified"] - CLOCK_STEP


@contextmanager
def _asking() -> Iterator[None]:
    """Give the failures of the service our names. Its own texts stay out of answers: they may tell of keys."""
    try:
        yield
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            raise FileNotFoundError("There is no such stored file.") from error
        raise StorageUnreachable("The bucket refuses to answer.") from error
    except BotoCoreError as error:
        raise StorageUnreachable("The bucket cannot be reached.") from error


def _body(body: Any) -> Iterator[bytes]:
    with body:
        yield from body.iter_chunks(PART_BYTES)
