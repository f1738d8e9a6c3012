"""The form that starts a crawl."""

from collections.abc import Iterator
from typing import Any, cast

from django import forms
from django.contrib.admin.widgets import (
    AdminIntegerFieldWidget,
    AdminTextareaWidget,
    AdminTextInputWidget,
)
from django.core.exceptions import ValidationError
from django.utils.text import Truncator

from albums.admin.choosing import album_field
from albums.models import Visibility
from imagehub.config import get_config
from imagehub.errors import Invalid
from scraping.crawler.addresses import LONGEST
from scraping.models.jobs import LONGEST_NAME

FOLLOW = [("host", "the same host"), ("site", "the same site"), ("anywhere", "anywhere")]

FIELDSETS = [
    ("What to fetch", ["url", "urls"]),
    ("How far", ["follow_links", "follow", "depth", "max_pages", "max_images", "min_side"]),
    ("Where it goes", ["album", "album_name", "visibility", "needs_review"]),
    ("What sites ask for", ["obey_robots", "obey_opt_outs"]),
    ("What everybody reads of it", ["name", "description"]),
]


def _number(label: str, most: int | None = None, *, help_text: str = "") -> forms.IntegerField:
    return forms.IntegerField(
        label=label,
        min_value=1,
        max_value=most,
        required=False,
        help_text=help_text,
        widget=AdminIntegerFieldWidget,
    )


class StartForm(forms.Form):
    """Takes what :func:`scraping.services.crawls.start_crawl` does, and shows its refusals beside the fields."""

    url = forms.CharField(
        label="A page to begin with",
        required=False,
        max_length=LONGEST,
        widget=AdminTextInputWidget(attrs={"placeholder": "https://", "autofocus": True}),
    )
    urls = forms.CharField(
        label="Or a list of addresses",
        required=False,
        widget=AdminTextareaWidget(attrs={"rows": 4}),
        help_text="One a line. What ends like a picture is fetched as one, all else is read as a page. No link is followed.",
    )
    follow_links = forms.BooleanField(label="Follow links", required=False, initial=True)
    follow = forms.ChoiceField(label="Links to", choices=FOLLOW, initial="site", required=False)
    depth = _number(
        "Depth",
        10,
        help_text="1 reads the first page only; each more follows the links of what was read before.",
    )
    max_pages = _number("Pages at most")
    max_images = _number("Pictures at most")
    min_side = _number("Smallest side", help_text="In pixels. Smaller pictures are not kept.")
    album = album_field("Into this album", required=False)
    album_name = forms.CharField(
        label="Or a new album, called",
        required=False,
        max_length=LONGEST_NAME,
        widget=AdminTextInputWidget,
        help_text="Empty: as the crawl.",
    )
    visibility = forms.ChoiceField(
        label="Who sees the pictures", choices=Visibility.choices, initial=Visibility.PRIVATE
    )
    needs_review = forms.BooleanField(
        label="Let the pictures wait until somebody has approved them", required=False
    )
    obey_robots = forms.BooleanField(
        label="Leave alone what robots.txt forbids",
        required=False,
        initial=True,
        help_text="That somebody has decided otherwise is noted in the audit trail.",
    )
    obey_opt_outs = forms.BooleanField(
        label="Leave alone what opts out of AI",
        required=False,
        initial=True,
        help_text="By their headers, their pages or a file for that. This, too, is noted.",
    )
    name = forms.CharField(
        required=False,
        max_length=LONGEST_NAME,
        widget=AdminTextInputWidget,
        help_text="Empty: after the host.",
    )
    description = forms.CharField(required=False, widget=AdminTextareaWidget(attrs={"rows": 2}))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        limits = get_config().scraping
        suggested = {
            "depth": limits.depth,
            "max_pages": limits.max_pages,
            "max_images": min(1000, limits.max_images),
            "min_side": limits.minimum_side,
        }
        for name, value in suggested.items():
            self.fields[name].initial = value

    def clean(self) -> dict[str, Any]:
        """Check what a service could not: that nobody means two things at once."""
        cleaned = super().clean() or {}
        if cleaned.get("url") and cleaned.get("urls"):
            self.add_error("urls", "Either one page or a list is needed, not both.")
        if cleaned.get("album") and cleaned.get("album_name"):
            self.add_error("album_name", "The pictures go into one album: choose it, or name a new one.")
        return cleaned

    @property
    def options(self) -> dict[str, Any]:
        """What ``start_crawl`` is called with, but for the owner."""
        cleaned = dict(self.cleaned_data)
        cleaned["urls"] = [line.strip() for line in cleaned["urls"].splitlines() if line.strip()]
        cleaned["follow"] = cleaned["follow"] or "site"
        if cleaned["max_images"] is None:
            del cleaned["max_images"]
        return cleaned

    def tell(self, error: Invalid | ValidationError) -> None:
        """Show why a crawl was refused, beside the field that it is about."""
        if isinstance(error, ValidationError):
            for message in error.messages:
                self.add_error(None, message)
            return
        for fault in error.faults:
            name, _, place = fault.pointer.lstrip("/").partition("/")
            about = ""
            if name == "urls" and place.isdecimal():
                about = f"{Truncator(self.options['urls'][int(place)]).chars(80)}: "
            self.add_error(name if name in self.fields else None, about + fault.detail)

    def sections(self) -> Iterator[tuple[str, list[forms.BoundField]]]:
        """Yield the fields in groups, each with its heading."""
        for heading, names in FIELDSETS:
            yield heading, [cast(forms.BoundField, self[name]) for name in names]
