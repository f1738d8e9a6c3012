from django.urls import path
from rest_framework.routers import SimpleRouter

from generation.api import views

router = SimpleRouter(trailing_slash=False)
router.register("jobs", views.JobViewSet, basename="job")

urlpatterns = [
    path("generate", views.GenerateView.as_view(), name="generate"),
    *router.urls,
]
