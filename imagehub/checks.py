"""System checks: what can be seen to be wrong before anything runs."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register

from imagehub.roots import media_root


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


@register(Tags.files)
def nobody_but_us_serves_files(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Assert that pictures do not lie where static files are served to everybody, nor the other way round."""
    media, static = media_root().resolve(), Path(settings.STATIC_ROOT).resolve()
    if not (media.is_relative_to(static) or static.is_relative_to(media)):
        return []
    return [
        Error(
            "The media root and the folder of static files lie within each other: private pictures would be served.",
            hint="Move IMAGEHUB_MEDIA_ROOT.",
            id="imagehub.E002",
        )
    ]
