from django.apps import AppConfig


class ImageHubConfig(AppConfig):
    name = "imagehub"
    label = "imagehub"
    verbose_name = "ImageHub"
