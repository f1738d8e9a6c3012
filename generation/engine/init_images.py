"""The picture that image-to-image starts from."""

from pathlib import Path

from PIL import Image, ImageOps

from training.pipelines.failures import FailureCode, RequestFailed


def open_init_image(path: Path, *, width: int, height: int) -> Image.Image:
    """Return a picture as RGB of that size, cropped around its middle where its shape is another. Clear parts turn white.

    Raises:
        RequestFailed: it is not there or cannot be read (``init_image_invalid``).
    """
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestFailed(
            FailureCode.INIT_IMAGE_INVALID, "The picture to start from cannot be read."
        ) from error
    white = Image.new("RGBA", upright.size, "white")
    flat = Image.alpha_composite(white, upright).convert("RGB")
    return ImageOps.fit(flat, (width, height), Image.Resampling.LANCZOS)
