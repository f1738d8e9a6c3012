from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Who may call: API tokens of Django's own users. And who did what: the audit trail."""

    name = "imagehub.accounts"
    label = "accounts"
    verbose_name = "Accounts"

    def ready(self) -> None:
        from imagehub.accounts import signals

        signals.connect()
