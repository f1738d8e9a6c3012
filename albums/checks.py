"""System checks: may these libraries be shown pictures from strangers?"""

import re
from typing import Any

import PIL
from django.core.checks import CheckMessage, Error, Tags, register
from PIL import features

OLDEST = {"Pillow": (12, 3, 0), "libwebp": (1, 3, 2), "libjpeg-turbo": (2, 1, 4)}
"""Without the holes known in 2026; libwebp 1.3.2 closes CVE-2023-4863."""


def decoder_versions() -> dict[str, str]:
    """Return the versions of what decodes pictures here; empty for what is missing."""
    return {
        "Pillow": PIL.__version__,
        "libwebp": features.version("webp") or "",
        "libjpeg-turbo": features.version("libjpeg_turbo") or "",
    }


@register(Tags.security)
def decoders_are_recent(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Assert that no decoder has a hole through which a picture is known to climb."""
    return [
        Error(
            f"{name} is {version or 'missing'}; pictures are decoded with"
            f" {'.'.join(map(str, OLDEST[name]))} or later only.",
            hint="Install the Pillow that requirements.txt names, as a wheel: it brings its libraries along.",
            id=f"albums.E{number:03}",
        )
        for number, (name, version) in enumerate(decoder_versions().items(), start=1)
        if tuple(map(int, re.findall(r"\d+", version))) < OLDEST[name]
    ]
