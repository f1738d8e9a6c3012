"""The full-text indexes, each database's own, over the words of images; and what earlier rows lack."""

from django.db import migrations

from albums.words import document_of

# The words are found by us (albums/words.py): each database is told to split at spaces and nowhere else.
SQLITE = """
CREATE VIRTUAL TABLE albums_imagetext_fts USING fts5(
    document, content='albums_imagetext', content_rowid='id', tokenize='ascii', detail='none', prefix='1 2 3 4 5'
);
CREATE TRIGGER albums_imagetext_added AFTER INSERT ON albums_imagetext BEGIN
    INSERT INTO albums_imagetext_fts(rowid, document) VALUES (new.id, new.document);
END;
CREATE TRIGGER albums_imagetext_removed AFTER DELETE ON albums_imagetext BEGIN
    INSERT INTO albums_imagetext_fts(albums_imagetext_fts, rowid, document) VALUES ('delete', old.id, old.document);
END;
CREATE TRIGGER albums_imagetext_changed AFTER UPDATE ON albums_imagetext WHEN old.document <> new.document BEGIN
    INSERT INTO albums_imagetext_fts(albums_imagetext_fts, rowid, document) VALUES ('delete', old.id, old.document);
    INSERT INTO albums_imagetext_fts(rowid, document) VALUES (new.id, new.document);
END;
"""
SQLITE_BACK = """
DROP TRIGGER albums_imagetext_added;
DROP TRIGGER albums_imagetext_removed;
DROP TRIGGER albums_imagetext_changed;
DROP TABLE albums_imagetext_fts;
"""
POSTGRESQL = """
ALTER TABLE albums_imagetext ADD COLUMN vector tsvector
    GENERATED ALWAYS AS (array_to_tsvector(array_remove(string_to_array(document, ' '), ''))) STORED;
CREATE INDEX image_words ON albums_imagetext USING gin (vector) WITH (gin_pending_list_limit = 512);
-- Thousands of words are counted, and not one thousand: PostgreSQL takes a word that it has not counted for half as
-- frequent as the last one, and would walk through a million images for it.
ALTER TABLE albums_imagetext ALTER COLUMN vector SET STATISTICS 1000;
"""
POSTGRESQL_BACK = "ALTER TABLE albums_imagetext DROP COLUMN vector;"


def run(sqlite, postgresql):
    def statements(apps, schema_editor):
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(postgresql)
        else:
            # Triggers hold semicolons of their own.
            for statement in sqlite.replace(";\nCREATE", "\0CREATE").replace(";\nDROP", "\0DROP").split("\0"):
                schema_editor.execute(statement.strip())

    return statements


def fill(apps, schema_editor):
    """Give the images and albums of an earlier version their words, adapters, counts and previews."""
    Image = apps.get_model("albums", "Image")
    ImageText = apps.get_model("albums", "ImageText")
    ImageLora = apps.get_model("albums", "ImageLora")
    texts, loras = [], []
    for image in Image.objects.order_by("created_at", "pk").only("name", "prompt", "loras").iterator():
        texts.append(ImageText(image=image, document=document_of(image.name, image.prompt)))
        for lora_id in sorted({str(lora["id"])[:64] for lora in image.loras if lora.get("id") is not None}):
            loras.append(ImageLora(image=image, lora_id=lora_id))
    ImageText.objects.bulk_create(texts, batch_size=500)
    ImageLora.objects.bulk_create(loras, batch_size=500)

    Album = apps.get_model("albums", "Album")
    AlbumImage = apps.get_model("albums", "AlbumImage")
    for pk in Album.objects.values_list("pk", flat=True):
        places = AlbumImage.objects.filter(album=pk).order_by("position", "image_id")
        public = places.filter(image__visibility="public")
        Album.objects.filter(pk=pk).update(
            total_images=places.count(),
            public_images=public.count(),
            preview_ids=[str(image) for image in places.values_list("image_id", flat=True)[:4]],
            public_preview_ids=[str(image) for image in public.values_list("image_id", flat=True)[:4]],
        )


class Migration(migrations.Migration):
    dependencies = [("albums", "0002_library")]

    operations = [
        migrations.RunPython(run(SQLITE, POSTGRESQL), run(SQLITE_BACK, POSTGRESQL_BACK)),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
