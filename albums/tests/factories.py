from datetime import timedelta
from io import BytesIO

import factory
import PIL.Image
from django.utils import timezone

from albums.models import Album, AlbumImage, Image, Label, LabelKind, LabelOrigin, Visibility
from albums.services import index_words, refresh_summaries, tag_identity
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


def stored_files():
    """Return the names of the pictures in the store."""
    return [file.name for file in storage.walk("images")]


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
        if images:
            refresh_summaries([album.pk])
            album.refresh_from_db()


class LabelFactory(factory.django.DjangoModelFactory):
    """A caption by people, unless told otherwise. Each tag is another."""

    class Meta:
        model = Label

    class Params:
        tag = factory.Trait(
            kind=LabelKind.TAG,
            text=factory.Sequence(lambda n: f"tag {n} {CANARY}"),
            identity=factory.LazyAttribute(lambda label: tag_identity(label.text)),
        )

    image = factory.SubFactory(ImageFactory)
    kind = LabelKind.CAPTION
    text = f"two hearts side by side, {CANARY}"
    origin = LabelOrigin.HUMAN
    model = ""
    identity = factory.LazyAttribute(
        lambda label: f"model:{label.model}" if label.origin == LabelOrigin.MODEL else label.origin
    )

    @classmethod
    def _after_postgeneration(cls, instance, create, results=None):
        if create:
            index_words([instance.image_id])


def many_images(count, **values):
    """Make images by one statement, all with one file; each minute there came one, the last of them now."""
    first = ImageFactory.build(**values)
    names = [field.name for field in Image._meta.concrete_fields if field.name not in {"id", "created_at"}]
    same = {name: getattr(first, name) for name in names}
    now = timezone.now()
    return Image.objects.bulk_create(
        Image(**same | {"name": f"picture {n}", "created_at": now - timedelta(minutes=count - 1 - n)})
        for n in range(count)
    )
