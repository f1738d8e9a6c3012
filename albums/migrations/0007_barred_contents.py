from django.db import migrations, models

from albums.batches import in_batches

BATCH = 500


def bar_what_was_taken_down(apps, schema_editor):
    """Of each image that was put into quarantine and is not at large again, the content is barred."""
    entries = apps.get_model("accounts", "AuditEntry").objects.filter(action="image.quarantine")
    image_model = apps.get_model("albums", "Image")
    barred = apps.get_model("albums", "BarredContent")
    noted = entries.values_list("target_id", "after").iterator(chunk_size=BATCH)
    for batch in in_batches(noted, BATCH):
        rows = image_model.objects.filter(pk__in={pk for pk, _ in batch})
        images = {str(pk): (sha256, trashed) for pk, sha256, trashed in rows.values_list("pk", "sha256", "deleted_at")}
        contents = set()
        for pk, after in batch:
            sha256, in_trash = images.get(pk, (after.get("sha256", ""), True))
            if sha256 and in_trash:
                contents.add(sha256)
        barred.objects.bulk_create([barred(sha256=sha256) for sha256 in sorted(contents)], ignore_conflicts=True)


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0002_scopes_and_audit'),
        ('albums', '0006_image_looks'),
    ]

    operations = [
        migrations.CreateModel(
            name='BarredContent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('sha256', models.CharField(max_length=64, unique=True, verbose_name='SHA-256')),
                ('since', models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.RunPython(bar_what_was_taken_down, migrations.RunPython.noop),
    ]
