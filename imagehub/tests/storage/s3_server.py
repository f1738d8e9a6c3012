"""A bucket on this machine: what moto makes of S3, behind a real port."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagehub.storage.bucket import MediaBucket

KEY, SECRET, BUCKET, REGION = "test-key", "test-secret", "imagehub-test", "us-east-1"


@contextmanager
def serving() -> Iterator[str]:
    """Serve an empty bucket, and yield the address of the service."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name=REGION, aws_access_key_id=KEY, aws_secret_access_key=SECRET
    )
    client.create_bucket(Bucket=BUCKET)
    yield url
    server.stop()


def options(url: str, *, prefix: str) -> dict[str, Any]:
    """Return what the settings say of a part of this bucket."""
    return {
        "bucket_name": BUCKET,
        "location": prefix,
        "endpoint_url": url,
        "public_endpoint": "",
        "region_name": REGION,
        "access_key": KEY,
        "secret_key": SECRET,
        "querystring_expire": 60,
        "addressing_style": "path",
    }


def bucket_of(*, location: str, **options: Any) -> "MediaBucket":
    """Stand in settings for the class of the same arguments: to build boto's client for each test takes a second."""
    bucket = _bucket(**options)
    bucket.location = location
    return bucket


@lru_cache
def _bucket(**options: Any) -> "MediaBucket":
    from imagehub.storage.bucket import MediaBucket

    return MediaBucket(**options)
