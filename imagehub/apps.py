from django.apps import AppConfig


class ImageHubConfig(AppConfig):
    name = "imagehub"
    label = "imagehub"
    verbose_name = "ImageHub"

    def ready(self) -> None:
        from django.conf import settings

        from imagehub import checks  # noqa: F401 - registers them

        if settings.SENTRY_DSN:
            from imagehub import error_reports  # its library need not be there otherwise

            error_reports.begin(settings.SENTRY_DSN, environment=settings.ENVIRONMENT)
