"""Paths below ``/api/``."""

from django.urls import path

from imagehub.accounts.api import auth_views

sign_in = [
    path("auth/login", auth_views.LoginView.as_view(), name="auth-login"),
    path("auth/google/callback", auth_views.GoogleCallbackView.as_view(), name="google_callback"),
    path("auth/done", auth_views.DoneView.as_view(), name="auth-done"),
    path("auth/me", auth_views.MeView.as_view(), name="auth-me"),
    path("auth/logout", auth_views.LogoutView.as_view(), name="auth-logout"),
]

urlpatterns = [*sign_in]
