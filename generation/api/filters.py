import django_filters

from generation.models import GenerationJob


class SetItemFilter(django_filters.FilterSet):
    class Meta:
        model = GenerationJob
        fields = ["status"]


class GenerationJobFilter(django_filters.FilterSet):
    class Meta:
        model = GenerationJob
        fields = ["status"]
