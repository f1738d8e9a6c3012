from rest_framework import serializers

from albums.set_templates.validation import LONGEST_THEME
from imagehub.api.serializers import StrictCharField, StrictSerializer


class RenderQuerySerializer(StrictSerializer):
    theme = StrictCharField(
        required=False, min_length=1, max_length=LONGEST_THEME, help_text="Default: the example of the set."
    )


class RenderedItemSerializer(StrictSerializer):
    """One picture of a set."""

    name = serializers.CharField()
    prompt = serializers.CharField()


class RenderedSetSerializer(StrictSerializer):
    """What a set would make, in its order."""

    results = RenderedItemSerializer(many=True)


class CsvFileSerializer(StrictSerializer):
    """A form with a CSV file."""

    file = serializers.FileField(allow_empty_file=True)


class SetRowsSerializer(StrictSerializer):
    """The rows of a set, as they are stored."""

    template_item_count = serializers.IntegerField()
    columns = serializers.ListField(child=serializers.CharField(), help_text="In their order.")
    set_rows = serializers.ListField(child=serializers.DictField(child=serializers.CharField()))
