"""Paths below ``/api/``."""

from rest_framework.routers import SimpleRouter

from imagehub.accounts.api.views import AuditViewSet, TokenViewSet

tokens_and_audit = SimpleRouter(trailing_slash=False, use_regex_path=False)
tokens_and_audit.register("auth/tokens", TokenViewSet, basename="token")
tokens_and_audit.register("admin/audit", AuditViewSet, basename="audit")

urlpatterns = [*tokens_and_audit.urls]
