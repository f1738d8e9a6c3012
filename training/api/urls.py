"""Paths below ``/api/``."""

from django.urls import URLPattern, URLResolver, path
from rest_framework.routers import SimpleRouter

from training.api import result_views, run_views
from training.api.dataset_views import PreflightView, TrainingAlbumViewSet
from training.api.labeling_views import LabelingItemViewSet, LabelingJobViewSet, LabelingView

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("labeling/jobs", LabelingJobViewSet, basename="labeling-job")
router.register("training", run_views.TrainingRunViewSet, basename="training")

samples = result_views.SampleViewSet
checkpoints = result_views.CheckpointViewSet

urlpatterns: list[URLPattern | URLResolver] = [
    path("labeling/images", LabelingView.as_view(), name="labeling-images"),
    path(
        "labeling/jobs/<uuid:pk>/items",
        LabelingItemViewSet.as_view({"get": "list"}),
        name="labeling-job-items",
    ),
    path("training/albums", TrainingAlbumViewSet.as_view({"get": "list"}), name="training-albums"),
    path("training/preflight", PreflightView.as_view(), name="training-preflight"),
    path("training/recipe-schema", result_views.RecipeSchemaView.as_view(), name="training-recipe-schema"),
    path("training/stats", result_views.FiguresView.as_view(), name="training-stats"),
    path(
        "training/loras",
        result_views.TrainedAdapterViewSet.as_view({"get": "list"}),
        name="training-loras",
    ),
    path(
        "training/loras/<uuid:pk>/download",
        result_views.AdapterFileView.as_view(),
        name="training-lora-download",
    ),
    path(
        "training/artifacts/purge", result_views.TrainingPurgeView.as_view(), name="training-artifacts-purge"
    ),
    path(
        "training/artifacts/purge/<uuid:pk>",
        result_views.TrainingPurgeRecordView.as_view(),
        name="training-purge",
    ),
    path("training/<uuid:pk>/logs", run_views.RunLogView.as_view(), name="training-logs"),
    path("training/<uuid:pk>/events", run_views.RunEventsView.as_view(), name="training-events"),
    path("training/<uuid:pk>/samples", samples.as_view({"get": "list"}), name="training-samples"),
    path(
        "training/<uuid:pk>/samples/<uuid:sample_id>/file",
        samples.as_view({"get": "file"}, detail=True),
        name="training-sample-file",
    ),
    path("training/<uuid:pk>/checkpoints", checkpoints.as_view({"get": "list"}), name="training-checkpoints"),
    path(
        "training/<uuid:pk>/checkpoints/<uuid:checkpoint_id>/promote",
        checkpoints.as_view({"post": "promote"}, detail=True),
        name="training-checkpoint-promote",
    ),
    path(
        "training/<uuid:pk>/checkpoints/<uuid:checkpoint_id>/pin",
        checkpoints.as_view({"post": "pin", "delete": "unpin"}, detail=True),
        name="training-checkpoint-pin",
    ),
    *router.urls,
]
