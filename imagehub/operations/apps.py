from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "imagehub.operations"
    label = "operations"
    verbose_name = "Operations"
