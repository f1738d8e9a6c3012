"""Base models and adapters in the admin: what a look at their files found, and what may be done with them."""

from pathlib import Path
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.db import models, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.csrf import csrf_protect

from albums import links
from albums.admin.refusals import RefusalsMixin
from albums.models import Image, ImageLora
from albums.services.uploads import quarantine
from albums.thumbnails import smallest_size
from training import services
from training.models import Adapter, BaseModel
from training.weights.adapters import LONGEST_TRIGGER_WORD, MOST_TRIGGER_WORDS

NOTHING = "\N{EM DASH}"


class WithoutTransaction(admin.ModelAdmin):
    """Saves forms by services that read files first: they open their transactions themselves.

    Django opens one around the whole form, and SQLite would let nobody else write while a large file is read.
    """

    @method_decorator(csrf_protect)
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show or save a form."""
        return self._changeform_view(request, object_id, form_url, extra_context)


class RegistryAdmin(RefusalsMixin, WithoutTransaction):
    """What base models and adapters have in common: a switch, and deletion by services."""

    formfield_overrides = {models.TextField: {"widget": AdminTextareaWidget(attrs={"rows": 3})}}
    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER

    @admin.action(description="Enable: jobs may use them", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._switch(request, queryset, is_enabled=True)

    @admin.action(description="Disable: no jobs, not even those that wait", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._switch(request, queryset, is_enabled=False)

    def _switch(self, request: HttpRequest, queryset: QuerySet, *, is_enabled: bool) -> None:
        rows = list(queryset)
        for row in rows:
            self.change(row, is_enabled=is_enabled)
        self.message_user(
            request, f"{len(rows)} {'enabled' if is_enabled else 'disabled'}.", messages.SUCCESS
        )

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.remove(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet) -> None:
        for row in queryset:
            self.remove(row)

    def change(self, row: Any, **changes: Any) -> None:
        """Change a row by its service."""
        raise NotImplementedError

    def remove(self, row: Any) -> None:
        """Delete a row by its service."""
        raise NotImplementedError


@admin.register(BaseModel)
class BaseModelAdmin(RegistryAdmin):
    """The base models that requests may name."""

    list_display = ["name", "source", "architecture", "default_size", "size", "state", "is_enabled"]
    list_filter = ["kind", "architecture", "is_enabled"]
    search_fields = ["name", "source"]
    ordering = ["name"]
    actions = ["probe", "enable", "disable"]
    slow_actions = frozenset({"probe"})
    readonly_fields = ["state", "pipeline", "size", "probed_at", "images_made", "created_at"]
    fieldsets = [
        (None, {"fields": ["name", "kind", "source", "architecture", "is_enabled"]}),
        (
            "What requests get that do not say",
            {
                "fields": [
                    ("default_width", "default_height"),
                    "default_steps",
                    "default_guidance_scale",
                    "default_scheduler",
                ]
            },
        ),
        (
            "What a look at its files found",
            {"fields": ["state", "pipeline", "size", "probed_at", "images_made", "created_at"]},
        ),
    ]

    @admin.display(description="Default size")
    def default_size(self, model: BaseModel) -> str:
        return f"{model.default_width} \N{MULTIPLICATION SIGN} {model.default_height}"

    @admin.display(description="Size", ordering="size_bytes")
    def size(self, model: BaseModel) -> str:
        return filesizeformat(model.size_bytes) if model.size_bytes else NOTHING

    @admin.display(description="State", ordering="problem")
    def state(self, model: BaseModel) -> str:
        if model.problem:
            return model.problem
        return "Sound." if model.probed_at else "Nobody has looked yet."

    @admin.display(description="Images made")
    def images_made(self, model: BaseModel) -> int:
        return Image.objects.filter(base_model=model.name).count()

    @admin.action(description="Look at their files again", permissions=["change"])
    def probe(self, request: HttpRequest, queryset: QuerySet[BaseModel]) -> None:
        for model in queryset:
            services.probe_base_model(model)
            level = messages.WARNING if model.problem else messages.SUCCESS
            self.message_user(request, f"{model}: {self.state(model)}", level)

    def save_model(self, request: HttpRequest, obj: BaseModel, form: Any, change: bool) -> None:  # noqa: FBT001
        if change:
            self.change(obj, **{name: form.cleaned_data[name] for name in form.changed_data})
        else:
            services.add_base_model(
                obj, keeps_size=bool({"default_width", "default_height"}.intersection(form.changed_data))
            )

    def change(self, row: BaseModel, **changes: Any) -> None:
        services.update_base_model(row, **changes)

    def remove(self, row: BaseModel) -> None:
        services.delete_base_model(row)


class TriggerWordsField(forms.CharField):
    """A list of words, written with commas between them."""

    widget = AdminTextInputWidget

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        words = [word.strip() for word in super().clean(value).split(",") if word.strip()]
        if len(words) > MOST_TRIGGER_WORDS or any(len(word) > LONGEST_TRIGGER_WORD for word in words):
            raise forms.ValidationError(
                f"At most {MOST_TRIGGER_WORDS} words, of at most {LONGEST_TRIGGER_WORD} characters each."
            )
        return words

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)


class AdapterForm(forms.ModelForm):
    trigger_words = TriggerWordsField(required=False, help_text="Separated by commas.")

    class Meta:
        model = Adapter
        fields = ["name", "description", "trigger_words", "default_weight", "preview", "is_enabled"]


class NewAdapterForm(forms.ModelForm):
    """What a file says fills in what is left empty."""

    file = forms.FileField(
        help_text=(
            "A .safetensors file with a LoRA, up to 200 MB. Programs send larger ones to POST /api/loras; or put them into "
            "the folder “loras” of the models root, and run manage.py scan_adapters."
        )
    )
    name = forms.CharField(
        required=False,
        max_length=200,
        widget=AdminTextInputWidget,
        help_text="Empty: what its header says, or what the file is called.",
    )
    trigger_words = TriggerWordsField(
        required=False, help_text="Separated by commas. Empty: what its header says."
    )

    class Meta:
        model = Adapter
        fields = ["file", "name", "description", "trigger_words"]


@admin.register(Adapter)
class AdapterAdmin(RegistryAdmin):
    """LoRA adapters: what their headers say, what they are called, and whether jobs may use them."""

    form = AdapterForm
    list_display = ["picture", "name", "architecture", "rank", "words", "size", "since", "is_enabled"]
    list_display_links = ["picture", "name"]
    list_filter = ["architecture", "layout", "is_enabled"]
    search_fields = ["name", "description", "source", "sha256"]
    ordering = ["-created_at", "-id"]
    actions = ["enable", "disable"]
    raw_id_fields = ["preview"]
    facts = [
        "state", "architecture", "layout", "rank", "alpha", "layers", "base_model_name", "size", "sha256", "source",
        "owner", "images_made", "created_at",
    ]  # fmt: skip

    class Media:
        css = {"all": ["albums/admin.css"]}

    @admin.display(description="Shown")
    def picture(self, adapter: Adapter) -> str:
        if adapter.preview_id is None:
            return NOTHING
        return format_html(
            '<span class="thumb"><img src="{}" alt="" loading="lazy"></span>',
            links.thumbnail_url(adapter.preview_id, smallest_size()),
        )

    @admin.display(description="Trigger words")
    def words(self, adapter: Adapter) -> str:
        return ", ".join(adapter.trigger_words)

    @admin.display(description="Size", ordering="size_bytes")
    def size(self, adapter: Adapter) -> str:
        return filesizeformat(adapter.size_bytes)

    @admin.display(description="Layers that it changes")
    def layers(self, adapter: Adapter) -> str:
        return ", ".join(f"{part}: {count}" for part, count in adapter.targets.items())

    @admin.display(description="Since", ordering="created_at")
    def since(self, adapter: Adapter) -> str:
        return f"{adapter.created_at:%Y-%m-%d}"

    @admin.display(description="State")
    def state(self, adapter: Adapter) -> str:
        try:
            services.locate_adapter(adapter)
        except services.AdapterMissing as missing:
            return str(missing)
        return "Its file is there."

    @admin.display(description="Images made")
    def images_made(self, adapter: Adapter) -> int:
        return ImageLora.objects.filter(lora_id=str(adapter.pk)).count()

    def get_form(self, request: HttpRequest, obj: Adapter | None = None, **options: Any) -> Any:
        return super().get_form(request, obj, **options | ({} if obj else {"form": NewAdapterForm}))

    def get_fieldsets(self, request: HttpRequest, obj: Adapter | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": NewAdapterForm.Meta.fields})]
        return [
            (None, {"fields": ["picture", *AdapterForm.Meta.fields]}),
            ("What its file says", {"fields": self.facts}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Adapter | None = None) -> list[str]:
        return ["picture", *self.facts] if obj else []

    def save_model(self, request: HttpRequest, obj: Adapter, form: Any, change: bool) -> None:  # noqa: FBT001
        if change:
            self.change(obj, **{name: form.cleaned_data[name] for name in form.changed_data})
            return
        upload = form.cleaned_data["file"]
        with quarantine() as folder:
            file = folder / "adapter"
            with file.open("xb") as target:
                for chunk in upload.chunks():
                    target.write(chunk)
            adapter, is_new = services.import_adapter(
                file,
                name=form.cleaned_data["name"],
                file_name=Path(upload.name).name,
                owner=request.user,
                description=form.cleaned_data["description"],
                trigger_words=form.cleaned_data["trigger_words"] or None,
            )
        obj.__dict__.update(adapter.__dict__, is_known=not is_new)

    def response_add(self, request: HttpRequest, obj: Adapter, post_url_continue: Any = None) -> HttpResponse:
        """Say so where the same bytes were there already, and lead to what they are."""
        if not getattr(obj, "is_known", False):
            return super().response_add(request, obj, post_url_continue)
        self.message_user(request, f"The same bytes are “{obj}” already.", messages.WARNING)
        return HttpResponseRedirect(reverse("admin:training_adapter_change", args=[obj.pk]))

    def change(self, row: Adapter, **changes: Any) -> None:
        with transaction.atomic():
            if "preview" in changes:
                services.set_adapter_preview(row, changes.pop("preview"))
            if changes:
                services.update_adapter(row, **changes)

    def remove(self, row: Adapter) -> None:
        services.delete_adapter(row)
