"""Paths below ``/api/``."""

from rest_framework.routers import SimpleRouter

from albums.api.views import AlbumViewSet, ImageViewSet

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("images", ImageViewSet, basename="image")
router.register("albums", AlbumViewSet, basename="album")

urlpatterns = router.urls
