"""Pages for people."""

from django.urls import path

from albums.pages.lists import album, albums, front
from albums.pages.picture import picture

urlpatterns = [
    path("", front, name="front"),
    path("albums", albums, name="albums"),
    path("albums/<uuid:album_id>", album, name="album"),
    path("images/<uuid:image_id>", picture, name="picture"),
]
