import socket
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import factory
from django.utils import timezone

from imagehub.operations.filesystems import FileSystem
from imagehub.operations.models import DiskSnapshot

GB = 10**9


def file_system(used_percent: float = 50.0, **values: Any) -> FileSystem:
    """A disk of 100 GB with two roots."""
    used = round(used_percent * GB)
    fields = {
        "name": "media, var",
        "mount": "/srv",
        "total_bytes": 100 * GB,
        "used_bytes": used,
        "free_bytes": 100 * GB - used,
        "percent_used": float(used_percent),
        "inodes_percent_used": 10.0,
        "roots": ["media", "var"],
    }
    return FileSystem(**(fields | values))


class DiskSnapshotFactory(factory.django.DjangoModelFactory[DiskSnapshot]):
    """What was seen some time ago. ``kinds`` has bytes by root and kind, three files each."""

    class Meta:
        model = DiskSnapshot

    class Params:
        ago = timedelta()
        used_percent = 50.0
        kinds = {"media": {"originals": 0}}

    host = factory.LazyFunction(socket.gethostname)
    taken_at = factory.LazyAttribute(lambda row: timezone.now() - row.ago)
    seconds = 1.5
    filesystems = factory.LazyAttribute(lambda row: [asdict(file_system(row.used_percent))])
    usage = factory.LazyAttribute(
        lambda row: {
            root: {kind: {"bytes": size, "files": 3} for kind, size in kinds.items()}
            for root, kinds in row.kinds.items()
        }
    )
