"""An app that an instance can be given: the views of ``bench.trivial_views``."""

from django.apps import AppConfig
from django.urls import path


class Trivial(AppConfig):
    name = "bench"
    label = "bench_trivial"

    def ready(self) -> None:
        from bench import trivial_views
        from imagehub import urls

        urls.urlpatterns[:0] = [
            path("api/bench/open", trivial_views.OpenView.as_view()),
            path("api/bench/signed-in", trivial_views.SignedInView.as_view()),
            path("api/bench/limited", trivial_views.LimitedView.as_view()),
        ]
