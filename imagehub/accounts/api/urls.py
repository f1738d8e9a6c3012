"""Paths below ``/api/``."""

from rest_framework.routers import SimpleRouter

from imagehub.accounts.api.views import AuditViewSet, TokenViewSet

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("auth/tokens", TokenViewSet, basename="token")
router.register("admin/audit", AuditViewSet, basename="audit")

urlpatterns = router.urls
