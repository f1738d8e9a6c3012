from io import BytesIO

import factory
import PIL.Image

from albums.models import Album, AlbumImage, Image, Visibility
from imagehub import storage
from imagehub.tests.canaries import CANARY

SIDE = 8


def picture(*, color="red", size=(SIDE, SIDE), file_format="PNG", mode="RGB", **options) -> bytes:
    """Return a small real picture file."""
    target = BytesIO()
    PIL.Image.new(mode, size, color).save(target, file_format, **options)
    return target.getvalue()


def staged(path, name="picture.png", **options):
    """Leave a picture where a job's child would, and return its path."""
    file = path / name
    file.write_bytes(picture(**options))
    return file


class ImageFactory(factory.django.DjangoModelFactory):
    """An image whose file is really in the store."""

    class Meta:
        model = Image

    class Params:
        content = factory.LazyFunction(picture)
        stored = factory.LazyAttribute(lambda image: storage.store_bytes(image.content, suffix="png"))
        public = factory.Trait(visibility=Visibility.PUBLIC)

    name = factory.Sequence(lambda n: f"picture {n}")
    storage_name = factory.SelfAttribute("stored.name")
    sha256 = factory.SelfAttribute("stored.sha256")
    size_bytes = factory.SelfAttribute("stored.size_bytes")
    width = SIDE
    height = SIDE
    format = Image.Format.PNG
    source_kind = Image.SourceKind.UPLOAD
    prompt = f"a picture, {CANARY}"
    negative_prompt = f"a blur, {CANARY}"


class AlbumFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Album
        skip_postgeneration_save = True

    class Params:
        public = factory.Trait(visibility=Visibility.PUBLIC)

    name = factory.Sequence(lambda n: f"album {n}")

    @factory.post_generation
    def images(album, create, images, **kwargs):  # noqa: N805 - factory_boy's way
        for position, image in enumerate(images or []):
            AlbumImage.objects.create(album=album, image=image, position=position)
