"""What can be done with work under way: said once, for the button on a page and for the action on the list."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from django.contrib import messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from imagehub.admin_lists import LongListAdmin
from imagehub.errors import ImageHubError
from imagehub.jobs.models import JobStatus
from imagehub.operations.models import Purge

FROM_COCKPIT = "cockpit"
"""A field of forms on the cockpit: who pressed a button there goes back there."""


@dataclass(frozen=True)
class Act:
    """Something that can be done with a row."""

    label: str
    """What the button is called."""
    do: Callable[[HttpRequest, Any], Any]
    """Does it, and returns the row to be looked at then."""
    said: str
    """What is said then; ``{}`` is that row."""
    where: frozenset[str] = frozenset(JobStatus.values)
    """The statuses in which it makes sense."""
    on_list: str = ""
    """What the action on the list is called, which does it to each; empty: there is none."""


@dataclass(frozen=True)
class Standing:
    """How far a piece of work is."""

    status: str
    progress: int
    """Percent."""
    said: str
    """For the top of its page."""

    @property
    def is_over(self) -> bool:
        return self.status in JobStatus.FINISHED


class WholePageChangeList(ChangeList):
    """A page of rows that are looked at all at once."""

    def get_results(self, request: HttpRequest) -> None:
        """Fetch the page, and let the admin look at its rows."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        self.model_admin.look_at(self.result_list)


class ActingAdmin(LongListAdmin):
    """Watch work, and act on it: whoever may change such rows may. Its own page is there to be read."""

    acts: ClassVar[Mapping[str, Act]] = {}
    """By the name that forms send. The first that the rest of the admin counts on is ``cancel``."""
    purge_kind = ""
    """The purge that clears out what is old of it."""
    events_route = ""
    """Where its page hears how it goes; without one it asks every few seconds."""
    sortable_by: ClassVar[list[str]] = ["came"]
    ordering = ["-created_at", "-id"]
    change_list_template = "admin/job_list.html"
    change_form_template = "admin/job_page.html"

    class Media:
        css = {"all": ["imagehub/admin_jobs.css"]}

    def look_at(self, rows: list[Any]) -> None:
        """Find out what the list shows of these rows and they do not know themselves."""

    def standing_of(self, row: Any) -> Standing:
        """Return how far a row is, for its page."""
        raise NotImplementedError

    # ---- The list ----

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return WholePageChangeList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Show the list, and the way to its purge."""
        return super().changelist_view(request, self._ways_out(request) | (extra_context or {}))

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return the actions of the list, and before them the acts that it knows."""
        found = super().get_actions(request)
        if IS_POPUP_VAR in request.GET or not self.has_change_permission(request):
            return found
        return {
            name: (partial(type(self)._act_on_each, name=name), name, act.on_list)
            for name, act in self.acts.items()
            if act.on_list
        } | found

    def _act_on_each(self, request: HttpRequest, rows: QuerySet, *, name: str) -> None:
        """Act on each row by itself: what is refused for one is done for the others."""
        for row in rows.order_by("created_at", "pk"):
            self._try(request, self.acts[name], row, about=f"{row}: ")

    # ---- Acting ----

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.act)
        return [path("<uuid:id>/act/", view, name=self.route("act")), *super().get_urls()]

    def act(self, request: HttpRequest, id: Any) -> HttpResponse:  # noqa: A002 - as the path calls it
        """Do what a button says."""
        self.require_change(request)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        row = self.get_object(request, str(id))
        if row is None:
            raise Http404
        row = self.act_by_name(request, row, request.POST.get("act", ""))
        return self.back(request, reverse(f"admin:{self.route('change')}", args=[row.pk]))

    def act_by_name(self, request: HttpRequest, row: Any, name: str) -> Any:
        """Do one of the acts, and return the row to be looked at then.

        Raises:
            Http404: there is no such act.
        """
        if name not in self.acts:
            raise Http404
        return self._try(request, self.acts[name], row)

    def _try(self, request: HttpRequest, act: Act, row: Any, *, about: str = "") -> Any:
        """Act on a row, and say what came of it."""
        try:
            done = act.do(request, row)
        except (ImageHubError, ValidationError) as error:
            text = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
            self.message_user(request, about + text, messages.WARNING)
            return row
        self.message_user(request, act.said.format(done), messages.SUCCESS)
        return done

    def require_change(self, request: HttpRequest) -> None:
        """See that somebody may act.

        Raises:
            PermissionDenied: they may not.
        """
        if not self.has_change_permission(request):
            raise PermissionDenied

    def route(self, page: str) -> str:
        """Return the name of one of its pages, as ``reverse`` knows it below ``admin:``."""
        return f"{self.opts.app_label}_{self.opts.model_name}_{page}"

    @staticmethod
    def back(request: HttpRequest, here: str) -> HttpResponseRedirect:
        """Return to the cockpit, if that is where somebody comes from, or else to a page."""
        return HttpResponseRedirect(reverse("admin:index") if FROM_COCKPIT in request.POST else here)

    # ---- The page of one ----

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a row, with how far it is and what can be done now."""
        context = self._ways_out(request)
        row = self.get_object(request, object_id) if object_id else None
        if row is not None:
            standing = self.standing_of(row)
            acts = [(name, act.label) for name, act in self.acts.items() if standing.status in act.where]
            context |= {
                "standing": standing,
                "events_url": reverse(self.events_route, args=[row.pk]) if self.events_route else "",
                "acts": acts,
                "act_url": reverse(f"admin:{self.route('act')}", args=[row.pk]),
            }
        return super().changeform_view(request, object_id, form_url, context | (extra_context or {}))

    def _ways_out(self, request: HttpRequest) -> dict[str, Any]:
        may_purge = self.purge_kind and self.admin_site.get_model_admin(Purge).has_add_permission(request)
        purge_url = f"{reverse('admin:operations_purge_add')}?kind={self.purge_kind}" if may_purge else ""
        return {"may_act": self.has_change_permission(request), "purge_url": purge_url}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """One may act on rows, but what a page says of one is there to be read."""
        return obj is None and super().has_change_permission(request)
