"""What a model is shown of a picture."""

import PIL.Image


def on_white(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Return a picture in RGB; what can be seen through shows white, as on a page."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    colors = picture.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", colors.size, "white"), colors).convert("RGB")
