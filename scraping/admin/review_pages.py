"""Pages on which somebody decides: which pictures of a crawl are wanted, and which of two that look the same."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from albums import links
from albums.thumbnails import default_size
from imagehub.errors import ImageHubError
from scraping.admin.links import outward
from scraping.models import ScrapedImage, ScrapeJob
from scraping.services import reviewing
from scraping.services.reviewing import Keep

PICTURES_PER_PAGE = 24
PAIRS_PER_PAGE = 10

DECISIONS = ("approve", "reject", "approve_all")

KEPT = {
    Keep.BOTH: "Both pictures are kept.",
    Keep.NEW: "The picture that was there is in the trash now.",
    Keep.OLD: "The new picture is in the trash now.",
}


class ReviewPages:
    """For the admin of crawls."""

    def get_urls(self) -> list[URLPattern]:
        """Return the pages of a crawl, and before them those of a review."""
        site = self.admin_site  # type: ignore[attr-defined]
        pages = [
            path("<uuid:id>/review/", site.admin_view(self.review), name="scraping_scrapejob_review"),
            path(
                "<uuid:id>/lookalikes/",
                site.admin_view(self.lookalikes),
                name="scraping_scrapejob_lookalikes",
            ),
        ]
        return [*pages, *super().get_urls()]  # type: ignore[misc]

    # ---- Pictures that wait ----

    def review(self, request: HttpRequest, id: UUID) -> HttpResponse:  # noqa: A002 - as the path calls it
        """Show the pictures of a crawl that wait, or carry out what somebody says of them."""
        job = self._job(request, id)
        if request.method == "POST":
            self._decide(request, job)
            return HttpResponseRedirect(request.get_full_path())
        waiting = reviewing.undecided(job)
        page = _page(request, waiting, PICTURES_PER_PAGE)
        context = {
            "page": page,
            "pictures": [(item, outward(item.page_url or item.url, longest=80)) for item in page],
            "last": waiting.order_by("pk").values_list("pk", flat=True).last(),
            "approved": reviewing.approved(job).count(),
        }
        return self._show(request, job, "review", "Review pictures", context)

    def _decide(self, request: HttpRequest, job: ScrapeJob) -> None:
        act = request.POST.get("act", "")
        if act not in DECISIONS:
            raise Http404
        if act == "approve_all":
            # Those that came after the page was made have been seen by nobody.
            last = _number(request.POST.get("last"))
            named = list(reviewing.undecided(job).filter(pk__lte=last).values_list("pk", flat=True))
        else:
            named = [_number(text) for text in request.POST.getlist("item")]
        is_rejected = act == "reject"
        approve, reject = ([], named) if is_rejected else (named, [])
        if not named:
            self._say(request, "Select pictures first.", messages.WARNING)
            return
        try:
            reviewing.decide(job, approve=approve, reject=reject)
        except ImageHubError as error:
            self._say(request, str(error), messages.WARNING)
        else:
            what = "1 picture is" if len(named) == 1 else f"{len(named)} pictures are"
            said = f"{what} rejected." if is_rejected else f"{what} approved, and taken in soon."
            self._say(request, said, messages.SUCCESS)

    # ---- Look-alikes ----

    def lookalikes(self, request: HttpRequest, id: UUID) -> HttpResponse:  # noqa: A002 - as the path calls it
        """Show pictures beside the images that they look like, or carry out what somebody has chosen."""
        job = self._job(request, id)
        if request.method == "POST":
            self._settle(request, job)
            return HttpResponseRedirect(request.get_full_path())
        page = _page(request, reviewing.lookalikes(job), PAIRS_PER_PAGE)
        pairs = [(item, [_side(item.image, "New"), _side(item.resembles, "There before")]) for item in page]
        return self._show(
            request, job, "lookalikes", "Pictures that look the same", {"page": page, "pairs": pairs}
        )

    def _settle(self, request: HttpRequest, job: ScrapeJob) -> None:
        keep = request.POST.get("keep", "")
        item = ScrapedImage.objects.filter(job=job, pk=_number(request.POST.get("item"))).first()
        if item is None or keep not in list(Keep):
            raise Http404
        try:
            reviewing.settle(item, keep=Keep(keep))
        except ImageHubError as error:
            self._say(request, str(error), messages.WARNING)
        else:
            self._say(request, KEPT[Keep(keep)], messages.SUCCESS)

    # ---- Both ----

    def _job(self, request: HttpRequest, pk: UUID) -> ScrapeJob:
        if not self.has_change_permission(request):  # type: ignore[attr-defined]
            raise PermissionDenied
        job = self.get_object(request, str(pk))  # type: ignore[attr-defined]
        if job is None:
            raise Http404
        return job

    def _say(self, request: HttpRequest, text: str, level: int) -> None:
        self.message_user(request, text, level)  # type: ignore[attr-defined]

    def _show(
        self, request: HttpRequest, job: ScrapeJob, name: str, title: str, context: dict[str, Any]
    ) -> TemplateResponse:
        context = self.admin_site.each_context(request) | context  # type: ignore[attr-defined]
        context |= {
            "title": title,
            "subtitle": str(job),
            "opts": self.opts,  # type: ignore[attr-defined]
            "original": job,
            "original_url": reverse("admin:scraping_scrapejob_change", args=[job.pk]),
            "media": self.media,  # type: ignore[attr-defined]
        }
        return TemplateResponse(request, f"admin/scraping/scrapejob/{name}.html", context)


def _page(request: HttpRequest, rows: QuerySet[ScrapedImage], size: int) -> Page:
    return Paginator(rows, size).get_page(request.GET.get("p"))


def _side(image: Any, when: str) -> dict[str, Any]:
    """Return what is shown of one of two pictures."""
    return {
        "image": image,
        "when": when,
        "page_url": reverse("admin:albums_image_change", args=[image.pk]),
        "thumbnail_url": links.thumbnail_url(image.pk, default_size()),
    }


def _number(text: str | None) -> int:
    """Return a key that somebody has sent; 0, which none has, where it is none."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else 0
