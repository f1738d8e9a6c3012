"""The admin with a cockpit on its first page."""

from typing import Any

from django.contrib import messages
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse

from imagehub.accounts.admin_site import AdminSite as GuardedSite
from imagehub.errors import ImageHubError
from imagehub.jobs.models import Job
from imagehub.jobs.registry import get_kind
from imagehub.operations import cockpit
from imagehub.operations.configuration import reload_configuration

RELOAD = "operations.reload_configuration"

QUEUED_TASKS = [
    ("django_q.failure", "Failed tasks"),
    ("django_q.success", "Successful tasks"),
    ("django_q.schedule", "Schedules"),
    ("django_q.ormq", "Waiting messages"),
]
"""Django-Q's own pages."""


class AdminSite(GuardedSite):
    index_template = "admin/cockpit.html"

    def get_urls(self) -> list[URLPattern | URLResolver]:
        own = [
            path("cockpit/", self.admin_view(self.cockpit), name="cockpit"),
            path("cockpit/reload/", self.admin_view(self.reload), name="cockpit_reload"),
        ]
        return [*own, *super().get_urls()]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """Show how everything stands, and below it the pages that there are."""
        return super().index(request, self._sight(request, is_anew=True) | (extra_context or {}))

    def cockpit(self, request: HttpRequest) -> TemplateResponse:
        """Answer with what the first page shows of everything, alone: the page asks for it every few seconds."""
        return TemplateResponse(request, "admin/cockpit_parts.html", self._sight(request, is_anew=False))

    def reload(self, request: HttpRequest) -> HttpResponse:
        """Read the configuration file now."""
        if not request.user.has_perm(RELOAD):  # type: ignore[union-attr]
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        try:
            reload_configuration()
        except ImageHubError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, "The configuration was read again.")
        return HttpResponseRedirect(reverse("admin:index"))

    def _sight(self, request: HttpRequest, *, is_anew: bool) -> dict[str, Any]:
        """Return what somebody sees, and where each thing leads that they may see or change."""

        def may(action: str, model: type[Model]) -> bool:
            codename = get_permission_codename(action, model._meta)
            return request.user.has_perm(f"{model._meta.app_label}.{codename}")  # type: ignore[union-attr]

        def may_view(model: type[Model]) -> bool:
            has_page = self.is_registered(model) or not issubclass(model, Job)
            return has_page and may("view", model)

        def where(page: str, model: type[Model], *args: Any) -> str:
            return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)

        def led(run: cockpit.Run) -> dict[str, Any]:
            model = type(run.row)
            may_act = may("change", model) and not run.is_stopping
            return {
                "run": run,
                "url": where("change", model, run.row.pk),
                "act_url": where("act", model, run.row.pk) if may_act else "",
            }

        sight = cockpit.look(may_view, is_anew=is_anew)
        models = {queue.kind: get_kind(queue.kind).model for queue in sight.queues}
        queues = [
            {
                "status": queue,
                "url": where("changelist", model),
                "switch_url": where("resume" if queue.pause else "pause", model) if may("change", model) else "",
            }
            for queue in sight.queues
            if (model := models[queue.kind])
        ]  # fmt: skip
        return {
            "sight": sight,
            "queues": queues,
            "may_pause": any(queue["switch_url"] for queue in queues),
            "runs": [led(run) for run in sight.runs],
            "failures": [led(run) for run in sight.failures.latest],
            "may_reload": request.user.has_perm(RELOAD),  # type: ignore[union-attr]
            "queued_tasks": [
                (reverse(f"admin:{label.replace('.', '_')}_changelist"), name)
                for label, name in QUEUED_TASKS
                if request.user.has_perm(label.replace(".", ".view_"))  # type: ignore[union-attr]
            ],
        }
