"""The captions and tags of an image, on its page."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.models import AbstractUser
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest

from albums import services
from albums.models import Image, Label, LabelOrigin
from imagehub.errors import Invalid

MOST_LABELS = 150
"""Beyond that a browser sends more fields than Django accepts from a form."""


class LabelForm(forms.ModelForm):
    class Meta:
        model = Label
        fields = ["kind", "text"]
        widgets = {"text": forms.Textarea(attrs={"rows": 2, "cols": 70})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["kind"].disabled = not self.instance._state.adding

    def clean(self) -> dict[str, Any]:
        """Check what is said as the service will."""
        cleaned = super().clean() or {}
        if cleaned.get("text") and cleaned.get("kind"):
            try:
                services.NewLabel(self.instance.image_id, cleaned["kind"], cleaned["text"], LabelOrigin.HUMAN)
            except Invalid as error:
                self.add_error("text", str(error))
        return cleaned


class LabelInline(admin.TabularInline):
    """Whoever changes what somebody else said makes it their own; what it was stays in the history."""

    model = Label
    form = LabelForm
    fields = ["kind", "text", "said_by"]
    readonly_fields = ["said_by"]
    ordering = ["kind", "created_at", "pk"]
    extra = 0
    verbose_name = "label"

    @admin.display(description="Said by")
    def said_by(self, label: Label) -> str:
        if label._state.adding:
            return "you"
        sure = "" if label.confidence is None else f" ({label.confidence:.0%})"
        return f"{label.model or label.get_origin_display()}{sure}"

    def has_change_permission(self, request: HttpRequest, obj: Image | None = None) -> bool:
        return not (obj and obj.deleted_at) and super().has_change_permission(request, obj)

    has_add_permission = has_change_permission
    has_delete_permission = has_change_permission


def save_labels(formset: BaseInlineFormSet, *, image: Image, user: AbstractUser) -> None:
    """Write what a form says about the labels of an image.

    Raises:
        ImageHubError: somebody removed one in the meantime, or the image has it already.
    """
    formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []
    deleted = formset.deleted_forms
    for form in deleted:
        if not form.instance._state.adding:
            services.remove_label(form.instance, user=user)
            formset.deleted_objects.append(form.instance)
    for form in formset.initial_forms:
        if form not in deleted and form.has_changed():
            label = services.change_label(form.instance, user=user, text=form.cleaned_data["text"])
            formset.changed_objects.append((label, form.changed_data))
    for form in formset.extra_forms:
        if form not in deleted and form.has_changed():
            kind, text = form.cleaned_data["kind"], form.cleaned_data["text"]
            label = services.put_label(image, kind, text, LabelOrigin.HUMAN, user=user)
            formset.new_objects.append(label)
