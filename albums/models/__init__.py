"""Images, what is said about them, and the albums that keep them in order."""

from albums.models.albums import PREVIEWS, Album, AlbumImage, AlbumQuerySet, MembershipQuerySet
from albums.models.barred import BarredContent
from albums.models.images import HIGHEST_RATING, Image, ImageLora, ImageQuerySet, validate_loras
from albums.models.labels import Label, LabelEdit, LabelKind, LabelOrigin, LabelRevision
from albums.models.looks import ImageLook
from albums.models.search import ImageText
from albums.models.visibility import Visibility, VisibilityQuerySet, may_see_everything

__all__ = [
    "HIGHEST_RATING",
    "PREVIEWS",
    "Album",
    "AlbumImage",
    "AlbumQuerySet",
    "BarredContent",
    "Image",
    "ImageLook",
    "ImageLora",
    "ImageQuerySet",
    "ImageText",
    "Label",
    "LabelEdit",
    "LabelKind",
    "LabelOrigin",
    "LabelRevision",
    "MembershipQuerySet",
    "Visibility",
    "VisibilityQuerySet",
    "may_see_everything",
    "validate_loras",
]
