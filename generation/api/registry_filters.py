"""Which base models and adapters to list."""

import django_filters
from django.db.models import Q, QuerySet

from albums.api.filters import FlagFilter
from albums.models import may_see_everything
from imagehub.api.filters import AskedFilterSet
from training.models import Adapter, AdapterQuerySet, Architecture, BaseModel
from training.services import adapters_that_fit

LONGEST_QUERY = 200


class _RegistryFilter(AskedFilterSet):
    architecture = django_filters.ChoiceFilter(choices=Architecture)
    is_enabled = FlagFilter(label="Staff only in effect: nobody else is shown what is disabled.")
    q = django_filters.CharFilter(
        method="search", max_length=LONGEST_QUERY, label="Words, all of which are there."
    )

    searched: tuple[str, ...] = ("name",)

    def search(self, queryset: QuerySet, name: str, value: str) -> QuerySet:
        for word in value.split():
            has_word = Q()
            for column in self.searched:
                has_word |= Q(**{f"{column}__icontains": word})
            queryset = queryset.filter(has_word)
        return queryset


class BaseModelFilter(_RegistryFilter):
    class Meta:
        model = BaseModel
        fields: tuple[str, ...] = ()


class AdapterFilter(_RegistryFilter):
    base_model = django_filters.CharFilter(
        method="fitting", max_length=100, label="Those that fit this base model, by its name."
    )

    class Meta:
        model = Adapter
        fields: tuple[str, ...] = ()

    @property
    def searched(self) -> tuple[str, ...]:  # type: ignore[override]
        """Nobody finds an adapter by what they are not shown."""
        return ("name", "description") if may_see_everything(self.request.user) else ("name",)

    def fitting(self, queryset: AdapterQuerySet, name: str, value: str) -> AdapterQuerySet:
        models = BaseModel.objects.shown_to(sees_everything=may_see_everything(self.request.user))
        model = models.filter(name=value).first()
        return adapters_that_fit(queryset, model) if model else queryset.none()
