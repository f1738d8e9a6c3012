"""Primary keys of jobs, images and albums."""

import uuid

import uuid6


def new_id() -> uuid.UUID:
    """Return a UUID version 7: unique anywhere, and sorted by time of creation (RFC 9562)."""
    return uuid.UUID(int=uuid6.uuid7().int)
