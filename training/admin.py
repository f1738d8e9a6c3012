from django.contrib import admin

from training.models import BaseModel


@admin.register(BaseModel)
class BaseModelAdmin(admin.ModelAdmin):
    """The base models that requests may name."""

    list_display = [
        "name",
        "kind",
        "source",
        "default_width",
        "default_height",
        "default_steps",
        "is_enabled",
    ]
    list_filter = ["kind", "is_enabled"]
    search_fields = ["name", "source"]
    ordering = ["name"]
