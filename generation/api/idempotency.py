"""Requests that are sent twice: the header ``Idempotency-Key``, and what tells one body from another."""

import hashlib
import json
from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from imagehub.errors import Invalid

MAX_KEY_LENGTH = 200

PARAMETER = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="Sent again with the same body, the answer is what was made the first time.",
)


def idempotency_of(request: Request, **also: Any) -> dict[str, str]:
    """Return the columns by which a row knows the request again that it came from.

    Without a key both are empty. ``also`` is what the path says and the body does not.

    Raises:
        Invalid: the key is no good.
    """
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > MAX_KEY_LENGTH or not key.isprintable():
        raise Invalid(f"It has at most {MAX_KEY_LENGTH} printable characters.", pointer="/Idempotency-Key")
    body = {"body": request.data, **also} if also else request.data
    return {"idempotency_key": key, "body_digest": _digest(body) if key else ""}


def _digest(body: Any) -> str:
    """Return a fingerprint of a JSON body that does not depend on the order of its fields."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
