import uuid
from collections.abc import Sequence
from typing import Any

import django_filters
from django import forms
from django.db import connections
from django.db.models import Exists, OuterRef, QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field

from albums.models import (
    HIGHEST_RATING,
    Album,
    Image,
    ImageLora,
    ImageQuerySet,
    Label,
    LabelKind,
    Visibility,
    may_see_everything,
)
from albums.services import tag_identity
from albums.words import Search, SearchTooLong
from imagehub.api.filters import AskedFilterSet, TimeFilter
from imagehub.api.pagination import ORDERING

FEW = 2000
"""So many images are fetched and put in order; of more, the list is walked in its order."""

MOST_TAGS = 10

ANY = "any"


class ImageSourceField(forms.CharField):
    """A kind of source, or the id of the job that is one."""

    def to_python(self, value: str | None) -> str | uuid.UUID | None:
        value = super().to_python(value)
        if not value or value in Image.SourceKind.values:
            return value
        try:
            return uuid.UUID(value)
        except ValueError as error:
            kinds = ", ".join(Image.SourceKind.values)
            raise forms.ValidationError(f"One of {kinds}, or the id of a job.", code="invalid") from error


@extend_schema_field(OpenApiTypes.STR)
class ImageSourceFilter(django_filters.Filter):
    field_class = ImageSourceField

    def filter(self, queryset: ImageQuerySet, value: str | uuid.UUID | None) -> ImageQuerySet:
        if isinstance(value, uuid.UUID):
            return queryset.filter(source_id=value)
        return queryset.filter(source_kind=value) if value else queryset


class WholeNumberFilter(django_filters.NumberFilter):
    field_class = forms.IntegerField


class FlagField(forms.CharField):
    def to_python(self, value: str | None) -> bool | None:
        value = super().to_python(value)
        if value not in {"", "true", "false"}:
            raise forms.ValidationError("It is true or false.", code="invalid")
        return {"true": True, "false": False}.get(value)


@extend_schema_field(OpenApiTypes.BOOL)
class FlagFilter(django_filters.Filter):
    """``true`` or ``false``; anything else is refused and not taken for nothing."""

    field_class = FlagField


class TagsField(forms.Field):
    """One tag or several, each as it is told apart."""

    widget = forms.MultipleHiddenInput

    def clean(self, value: list[str]) -> list[str]:
        tag = forms.CharField(required=False)
        tags = list(dict.fromkeys(tag_identity(text) for text in map(tag.clean, value) if text))
        if len(tags) > MOST_TAGS:
            raise forms.ValidationError(f"At most {MOST_TAGS} tags at once.", code="too_many")
        return tags


@extend_schema_field(OpenApiTypes.STR)
class TagsFilter(django_filters.Filter):
    field_class = TagsField


class SearchField(forms.CharField):
    def to_python(self, value: str | None) -> Search | None:
        value = super().to_python(value)
        self.run_validators(value)  # what they look at is the text
        try:
            return Search.parse(value) if value else None
        except SearchTooLong as error:
            raise forms.ValidationError(str(error), code="too_long") from error

    def clean(self, value: str | None) -> Search | None:
        return self.to_python(value)


@extend_schema_field(OpenApiTypes.STR)
class SearchFilter(django_filters.Filter):
    field_class = SearchField


class ImageFilter(AskedFilterSet):
    """Which images to list.

    An album that does not exist has no images. One that the caller may not see answers the same, so that
    nobody learns of it.
    """

    album = django_filters.UUIDFilter(method="in_album", label="The images of an album, in its order.")
    source = ImageSourceFilter(label="A kind of source, or the id of a job.")
    base_model = django_filters.CharFilter(label="The name of a base model.")
    lora = django_filters.CharFilter(method="with_lora", label="The id of an adapter that was used.")
    seed = WholeNumberFilter(min_value=0)
    width = WholeNumberFilter(min_value=1)
    height = WholeNumberFilter(min_value=1)
    min_width = WholeNumberFilter("width", lookup_expr="gte", min_value=1)
    max_width = WholeNumberFilter("width", lookup_expr="lte", min_value=1)
    min_height = WholeNumberFilter("height", lookup_expr="gte", min_value=1)
    max_height = WholeNumberFilter("height", lookup_expr="lte", min_value=1)
    created_after = TimeFilter("created_at", lookup_expr="gt")
    created_before = TimeFilter("created_at", lookup_expr="lt")
    starred = FlagFilter()
    rating = WholeNumberFilter(min_value=0, max_value=HIGHEST_RATING, label="0: those without one.")
    min_rating = WholeNumberFilter(method="rated_at_least", min_value=0, max_value=HIGHEST_RATING)
    tag = TagsFilter(
        method="with_tags",
        label=f"A tag, whatever its case. Given more than once: all of them, at most {MOST_TAGS}.",
    )
    nsfw = django_filters.ChoiceFilter(
        choices=[*Image.Nsfw.choices, (ANY, "Any")],
        method="by_nsfw",
        label="Without it the public is not shown what is flagged; staff see everything. Unknown is not safe.",
    )
    visibility = django_filters.ChoiceFilter(
        choices=Visibility, label="Staff only in effect: nobody else is shown private images."
    )
    owner = django_filters.CharFilter(
        method="of_owner", label="A user name. For staff only: nobody else is shown anything."
    )
    deleted = FlagFilter(
        method="in_trash", label="true: what is in the trash. For staff only: nobody else is shown anything."
    )
    q = SearchFilter(
        method="search",
        label=(
            'Words of the name, prompt, captions and tags, all of which have to be there; `"in a row"`, `begin*`, '
            "`-without`. At most 500 characters and 20 words. What was added last comes first."
        ),
    )

    class Meta:
        model = Image
        fields: tuple[str, ...] = ()

    def filter_queryset(self, queryset: ImageQuerySet) -> ImageQuerySet:
        for name, value in self.form.cleaned_data.items():
            if value not in (None, "", []):
                queryset = self.filters[name].filter(queryset, value)
        if not self.form.cleaned_data.get("nsfw") and not self._is_staff:
            queryset = queryset.unflagged()
        return queryset

    def in_album(self, queryset: ImageQuerySet, name: str, value: uuid.UUID) -> ImageQuerySet:
        images = queryset.in_album(value)
        is_visible = Album.objects.visible_to(self.request.user).filter(pk=value).exists()
        return images if is_visible else images.none()

    def rated_at_least(self, queryset: ImageQuerySet, name: str, value: int) -> ImageQuerySet:
        return queryset.rated_at_least(value)

    def with_lora(self, queryset: ImageQuerySet, name: str, value: str) -> ImageQuerySet:
        return self._named_by([ImageLora.objects.filter(lora_id=value)], queryset)

    def with_tags(self, queryset: ImageQuerySet, name: str, value: list[str]) -> ImageQuerySet:
        tags = Label.objects.filter(kind=LabelKind.TAG)
        return self._named_by([tags.filter(identity=tag) for tag in value], queryset)

    def by_nsfw(self, queryset: ImageQuerySet, name: str, value: str) -> ImageQuerySet:
        return queryset if value == ANY else queryset.filter(nsfw=value)

    def of_owner(self, queryset: ImageQuerySet, name: str, value: str) -> ImageQuerySet:
        return queryset.filter(owner__username=value) if self._is_staff else queryset.none()

    def in_trash(self, queryset: ImageQuerySet, name: str, value: bool) -> ImageQuerySet:  # noqa: FBT001
        """Leave it to the view, which has begun with the trash if it may be looked at."""
        return queryset if self._is_staff or not value else queryset.none()

    def search(self, queryset: ImageQuerySet, name: str, value: Search) -> ImageQuerySet:
        are_few = self._are_few or bool(self.form.cleaned_data.get("album"))
        is_sorted = bool(self.data.get(ORDERING)) and connections[queryset.db].vendor == "sqlite"
        by_rows = are_few or (is_sorted and Image.objects.search(value)[FEW:].exists())
        return queryset.search(value, by_rows=by_rows)

    _are_few = False

    def _named_by(self, named: Sequence[QuerySet[Any]], images: ImageQuerySet) -> ImageQuerySet:
        """Keep the images that rows of each of these sets name. At most two queries, however many sets there are.

        Whether one of them is small decides where a database had better begin.
        """
        are_many = named[0].model.objects.values_list(*(Exists(rows[FEW:]) for rows in named)).first()
        # Without any row there is no answer, and each of the sets is small.
        few = next(
            (rows for rows, is_many in zip(named, are_many or [False], strict=False) if not is_many), None
        )
        if few is None:
            return images.filter(*(Exists(rows.filter(image=OuterRef("pk"))) for rows in named))
        self._are_few = True
        others = (Exists(rows.filter(image=OuterRef("image"))) for rows in named if rows is not few)
        return images.filter(pk__in=list(few.filter(*others).values_list("image_id", flat=True)))

    @property
    def _is_staff(self) -> bool:
        return may_see_everything(self.request.user)


class AlbumFilter(AskedFilterSet):
    """Which albums to list."""

    is_set_template = FlagFilter(label="Only the set templates, or only the others.")
    kind = django_filters.ChoiceFilter(choices=Album.Kind)
    visibility = django_filters.ChoiceFilter(
        choices=Visibility, label="Staff only in effect: nobody else is shown private albums."
    )

    class Meta:
        model = Album
        fields: tuple[str, ...] = ()
