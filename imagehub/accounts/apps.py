from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Who may call: API tokens of Django's own users."""

    name = "imagehub.accounts"
    label = "accounts"
    verbose_name = "Accounts"
