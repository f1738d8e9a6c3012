from django.urls import path
from rest_framework.routers import SimpleRouter

from generation.api import generate_views, lineage_views, set_run_views, views
from generation.api.lora_views import AdapterViewSet
from generation.api.model_views import BaseModelViewSet
from generation.api.purging import GenerationPurgeRecordView, GenerationPurgeView

router = SimpleRouter(trailing_slash=False)
router.register("jobs", views.JobViewSet, basename="job")

by_path = SimpleRouter(trailing_slash=False, use_regex_path=False)
by_path.register("set-runs", set_run_views.SetRunViewSet, basename="set-run")
by_path.register("models", BaseModelViewSet, basename="model")
by_path.register("loras", AdapterViewSet, basename="lora")

urlpatterns = [
    path("generate", generate_views.GenerateView.as_view(), name="generate"),
    path("jobs/artifacts/purge", GenerationPurgeView.as_view(), name="jobs-artifacts-purge"),
    path("jobs/artifacts/purge/<uuid:pk>", GenerationPurgeRecordView.as_view(), name="jobs-purge"),
    path("jobs/<str:pk>/events", views.GenerationEventsView.as_view(), name="job-events"),
    path("albums/<uuid:pk>/generate", set_run_views.GenerateSetView.as_view(), name="album-generate"),
    path(
        "set-runs/<uuid:pk>/items",
        set_run_views.SetItemViewSet.as_view({"get": "list"}),
        name="set-run-items",
    ),
    path("images/<uuid:pk>/lineage", lineage_views.LineageView.as_view(), name="image-lineage"),
    path("images/<uuid:pk>/used-in", lineage_views.UsedInView.as_view(), name="image-used-in"),
    path("images/<uuid:pk>/recall", lineage_views.RecallView.as_view(), name="image-recall"),
    path("themes/random", set_run_views.RandomThemeView.as_view(), name="random-theme"),
    *router.urls,
    *by_path.urls,
]
