"""System checks: what can be seen to be wrong before anything runs."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register


@register(Tags.caches)
def processes_share_a_cache(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Assert that several web processes count rate limits together."""
    if settings.WEB_PROCESSES <= 1 or settings.REDIS_URL:
        return []
    return [
        Error(
            f"{settings.WEB_PROCESSES} web processes would each count rate limits for themselves.",
            hint="Set REDIS_URL, or WEB_CONCURRENCY to 1.",
            id="imagehub.E001",
        )
    ]
