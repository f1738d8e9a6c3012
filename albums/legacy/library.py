"""What this app imports, in the order in which rows need each other."""

from albums.legacy.album_rows import import_albums, import_templates
from albums.legacy.image_rows import import_images
from albums.legacy.label_rows import import_labels
from albums.legacy.place_rows import import_places
from albums.legacy.running import LegacyRun


def import_library(run: LegacyRun) -> None:
    """Import albums with their set templates, images, labels, and which images are in which albums."""
    import_albums(run)
    import_templates(run)
    import_images(run)
    import_labels(run)
    import_places(run)
