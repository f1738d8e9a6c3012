"""An app that an instance can be given: the views of ``bench.library_views``."""

from django.apps import AppConfig
from django.urls import path


class Library(AppConfig):
    name = "bench"
    label = "bench_library"

    def ready(self) -> None:
        from bench import library_views
        from imagehub import urls

        urls.urlpatterns[:0] = [
            path("api/bench/images", library_views.images),
            path("api/bench/albums", library_views.albums),
            path("api/bench/albums/<uuid:pk>", library_views.album),
        ]
