"""How images look is known of all of them now (albums.ImageLook), and no more kept with what a preflight has seen."""

from django.db import migrations

from albums.batches import in_batches
from albums.similarity import Fingerprint


def move(apps, schema_editor):
    """Take over what has been seen, so that nobody needs to look again."""
    ImageInspection = apps.get_model("training", "ImageInspection")
    ImageLook = apps.get_model("albums", "ImageLook")
    seen = ImageInspection.objects.exclude(fingerprint="").values_list("image", "fingerprint")
    for batch in in_batches(seen.iterator()):
        ImageLook.objects.bulk_create(
            [_look(ImageLook, pk, Fingerprint.parse(text)) for pk, text in batch], ignore_conflicts=True
        )


def _look(model, pk, fingerprint):
    parts = {f"edges_{number}": part for number, part in enumerate(fingerprint.parts)}
    return model(image_id=pk, tone=fingerprint.tone, colors=fingerprint.colors, **parts)


class Migration(migrations.Migration):
    dependencies = [("albums", "0006_image_looks"), ("training", "0010_purges_of_all")]

    operations = [
        migrations.RunPython(move, migrations.RunPython.noop),
        migrations.RemoveField(model_name="imageinspection", name="fingerprint"),
    ]
