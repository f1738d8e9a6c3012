"""Paths below ``/api/``."""

from django.urls import path
from rest_framework.routers import SimpleRouter

from imagehub.accounts.api import auth_views
from imagehub.accounts.api.views import AuditViewSet, TokenViewSet

sign_in = [
    path("auth/login", auth_views.LoginView.as_view(), name="auth-login"),
    path("auth/google/callback", auth_views.GoogleCallbackView.as_view(), name="google_callback"),
    path("auth/done", auth_views.DoneView.as_view(), name="auth-done"),
    path("auth/me", auth_views.MeView.as_view(), name="auth-me"),
    path("auth/logout", auth_views.LogoutView.as_view(), name="auth-logout"),
]

tokens_and_audit = SimpleRouter(trailing_slash=False, use_regex_path=False)
tokens_and_audit.register("auth/tokens", TokenViewSet, basename="token")
tokens_and_audit.register("admin/audit", AuditViewSet, basename="audit")

urlpatterns = [*sign_in, *tokens_and_audit.urls]
