import django_filters

from training.models import TrainingRun


class TrainingRunFilter(django_filters.FilterSet):
    class Meta:
        model = TrainingRun
        fields = ["status"]
