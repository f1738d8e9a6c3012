from django_filters.rest_framework import DjangoFilterBackend
class StrictFilterBackend(DjangoFilterBackend):
    pass
