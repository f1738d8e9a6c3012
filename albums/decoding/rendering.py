"""Making the thumbnail of a picture that is decoded: the rules are the same wherever one is made. No Django here."""

from io import BytesIO

import PIL.Image

from albums.decoding.icc import clean_profile

QUALITY, METHOD = 80, 4
MODES = {"RGB", "RGBA"}  # what WebP can hold


def render_thumbnail(picture: PIL.Image.Image, size: int) -> bytes:
    """Return an upright picture as WebP that fits into a square, and is never larger than the picture."""
    if picture.mode == "I;16":  # Pillow would cut off what is brighter than 255
        picture = picture.point(lambda value: value * (1 / 256)).convert("L")
    profile = profile_of(picture) if picture.mode in (*MODES, "P") else None
    if picture.mode not in MODES:
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    scale = size / max(picture.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), PIL.Image.Resampling.LANCZOS, reducing_gap=2.0)
    target = BytesIO()
    picture.save(target, "WEBP", quality=QUALITY, method=METHOD, icc_profile=profile)
    return target.getvalue()


def profile_of(picture: PIL.Image.Image) -> bytes | None:
    """Return the colours of a picture's profile, if it has one for pictures of its kind."""
    profile = clean_profile(picture.info.get("icc_profile") or b"")
    is_grey, is_print = picture.mode in ("1", "L", "LA", "I;16"), picture.mode == "CMYK"
    space = b"GRAY" if is_grey else b"CMYK" if is_print else b"RGB "
    return profile if profile and profile[16:20] == space else None
