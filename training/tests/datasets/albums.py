"""Albums of small pictures that differ, with captions."""

from albums.models import LabelOrigin
from albums.tests.factories import AlbumFactory, ImageFactory, LabelFactory, picture
from training.recipe import Recipe

RECIPE = Recipe(seed=1, steps=60, resolution=64, bucket_step=8, validation_share=0.25)

FEW = "storage: {minimum_free_bytes: 0}\ntraining: {minimum_images: 3, recommended_images: 5}\n"
"""A configuration that is content with few pictures."""


def image(number, *, size=(64, 64), mode="RGB", **values):
    """Return an image that differs from those with other numbers."""
    color = (number * 37 % 256, number * 91 % 256, number % 256)
    content = picture(color=color, size=size, mode=mode)
    return ImageFactory(content=content, width=size[0], height=size[1], **values)


def caption(image, text="a red heart on a white background", origin=LabelOrigin.HUMAN, **values):
    """Say something about an image."""
    return LabelFactory(image=image, text=text, origin=origin, **values)


def captioned_album(count=6, *, first=0, **values):
    """Return an album of so many images, each with a caption of its own."""
    images = [image(first + number) for number in range(count)]
    for number, one in enumerate(images):
        caption(one, f"picture {first + number}")
    return AlbumFactory(images=images, **values)
