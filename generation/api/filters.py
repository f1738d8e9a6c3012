import django_filters

from generation.models import GenerationJob


class GenerationJobFilter(django_filters.FilterSet):
    class Meta:
        model = GenerationJob
        fields = ["status"]
