from django.apps import AppConfig


class ImageHubConfig(AppConfig):
    name = "imagehub"
    label = "imagehub"
    verbose_name = "ImageHub"

    def ready(self) -> None:
        from imagehub import checks  # noqa: F401 - registers them
