import uuid

import django_filters
from django import forms
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field

from albums.models import Album, Image, ImageQuerySet, Visibility
from imagehub.api.filters import TimeFilter


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


class ImageFilter(django_filters.FilterSet):
    """Which images to list.

    An album that does not exist has no images. One that the caller may not see answers the same, so that
    nobody learns of it.
    """

    album = django_filters.UUIDFilter(method="in_album", label="The images of an album, in its order.")
    source = ImageSourceFilter(label="A kind of source, or the id of a job.")
    base_model = django_filters.CharFilter(label="The name of a base model.")
    seed = WholeNumberFilter(min_value=0)
    visibility = django_filters.ChoiceFilter(
        choices=Visibility, label="Staff only in effect: nobody else is shown private images."
    )
    created_after = TimeFilter("created_at", lookup_expr="gt")
    created_before = TimeFilter("created_at", lookup_expr="lt")

    class Meta:
        model = Image
        fields: tuple[str, ...] = ()

    def in_album(self, queryset: ImageQuerySet, name: str, value: uuid.UUID) -> ImageQuerySet:
        images = queryset.in_album(value)
        is_visible = Album.objects.visible_to(self.request.user).filter(pk=value).exists()
        return images if is_visible else images.none()


class AlbumFilter(django_filters.FilterSet):
    """Which albums to list."""

    kind = django_filters.ChoiceFilter(choices=Album.Kind)
    visibility = django_filters.ChoiceFilter(
        choices=Visibility, label="Staff only in effect: nobody else is shown private albums."
    )

    class Meta:
        model = Album
        fields: tuple[str, ...] = ()
