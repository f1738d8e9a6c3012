"""The admin of albums and images: forms and lists over the same services as the API."""

from albums.admin.albums import AlbumAdmin
from albums.admin.images import ImageAdmin
from albums.admin.label_edits import LabelEditAdmin

__all__ = ["AlbumAdmin", "ImageAdmin", "LabelEditAdmin"]
