"""Paths below ``/api/``."""

from django.urls import path
from rest_framework.routers import SimpleRouter

from albums.api.album_views import AlbumViewSet
from albums.api.image_views import ImageViewSet
from albums.api.label_edit_views import LabelEditViewSet
from albums.api.label_views import AlbumLabelAnalyticsView, LabelHistoryViewSet, LabelViewSet
from albums.api.purging import TrashPurgeRecordView, TrashPurgeView
from albums.api.set_views import SetViewSet
from albums.api.uploads import UploadView

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("images", ImageViewSet, basename="image")
router.register("albums", AlbumViewSet, basename="album")
router.register("labels/bulk", LabelEditViewSet, basename="label-edit")

urlpatterns = [
    path("images/upload", UploadView.as_view(), name="image-upload"),
    path("images/trash/purge", TrashPurgeView.as_view(), name="images-trash-purge"),
    path("images/trash/purge/<uuid:pk>", TrashPurgeRecordView.as_view(), name="trash-purge"),
    path(
        "images/<uuid:image_id>/labels",
        LabelViewSet.as_view({"get": "list", "post": "create"}),
        name="image-labels",
    ),
    path(
        "images/<uuid:image_id>/labels/history",
        LabelHistoryViewSet.as_view({"get": "list"}),
        name="image-label-history",
    ),
    path(
        "images/<uuid:image_id>/labels/<uuid:pk>",
        LabelViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        name="image-label",
    ),
    path(
        "albums/<uuid:album_id>/labels/analytics",
        AlbumLabelAnalyticsView.as_view(),
        name="album-label-analytics",
    ),
    path(
        "albums/<uuid:pk>/render",
        SetViewSet.as_view({"get": "render_prompts"}, detail=True),
        name="album-render",
    ),
    path(
        "albums/<uuid:pk>/rows.csv",
        SetViewSet.as_view({"get": "download_rows", "put": "upload_rows"}, detail=True),
        name="album-rows",
    ),
    *router.urls,
]
