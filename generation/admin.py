from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator

from albums import links
from albums.models import Image
from generation import services
from generation.models import GenerationJob


@admin.register(GenerationJob)
class GenerationJobAdmin(admin.ModelAdmin):
    """Watch generation jobs, and cancel them. They are made through the API."""

    list_display = ["short_prompt", "status", "progress_bar", "base_model", "owner", "attempt", "created_at"]
    list_filter = ["status", "base_model"]
    list_select_related = ["base_model", "owner"]
    search_fields = ["id", "prompt"]
    date_hierarchy = "created_at"
    ordering = ["-created_at", "-id"]
    actions = ["cancel"]
    show_full_result_count = False

    @admin.display(description="Prompt", ordering="prompt")
    def short_prompt(self, job: GenerationJob) -> str:
        return Truncator(job.prompt).chars(60)

    @admin.display(description="Pictures")
    def pictures(self, job: GenerationJob) -> str:
        return format_html_join(
            " ",
            '<a href="{}"><img src="{}" alt="" height="96"></a>',
            (
                (links.file_url(image.pk), links.thumbnail_url(image.pk))
                for image in Image.objects.made_by(job.pk).order_by("source_index")
            ),
        )

    @admin.display(description="Progress", ordering="progress")
    def progress_bar(self, job: GenerationJob) -> str:
        return format_html('<progress value="{0}" max="100">{0}%</progress>', job.progress)

    @admin.action(description="Cancel selected jobs", permissions=["change"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[GenerationJob]) -> None:
        for job in queryset:
            try:
                services.cancel_generation_job(job)
            except services.AlreadyFinished as error:
                self.message_user(request, str(error), messages.WARNING)
            else:
                self.message_user(request, f"{job} is stopping.", messages.SUCCESS)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: GenerationJob | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: GenerationJob | None = None) -> bool:
        """One may act on jobs in the list, but a job's own page is there to be read."""
        return obj is None and super().has_change_permission(request)

    def get_fields(self, request: HttpRequest, obj: GenerationJob | None = None) -> list[str]:
        own = ["token", "lease_until", "body_digest", "status"]
        shown = [field.name for field in self.opts.concrete_fields if field.name not in own]
        return ["pictures", "status", *shown]

    def get_readonly_fields(self, request: HttpRequest, obj: GenerationJob | None = None) -> list[str]:
        return self.get_fields(request, obj)
