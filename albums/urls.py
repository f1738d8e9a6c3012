"""Pages for people."""

from django.urls import path

from albums.pages import contact_sheet

urlpatterns = [
    path("", contact_sheet, name="contact-sheet"),
    path("albums/<uuid:album_id>", contact_sheet, name="album-contact-sheet"),
]
