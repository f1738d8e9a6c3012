"""Who may do what: one row for each route. A route without a row fails the test, and a row without a route too.

To add a route, add its row here, and if it has an id of a new kind, a target to :mod:`imagehub.tests.world`.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from imagehub.accounts.models import Scope


class Role(IntEnum):
    """Each may do what those before it may."""

    EVERYBODY = 0
    SIGNED_IN = 1
    STAFF = 2
    SUPERUSER = 3
    NOBODY = 4


SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Access:
    """What a view knows of methods and callers. A role is asked for before a method is found missing."""

    methods: frozenset[str]
    read: Role
    write: Role
    scope: Scope = Scope.ADMIN
    """What a token needs for methods that are not safe."""
    of: str = ""
    """The kind of row that the path names."""
    bodies: dict[str, Any] = field(default_factory=dict)
    """A body that is accepted, by method."""
    is_page: bool = False
    """A page for people: it knows sessions and no tokens."""


def api(
    methods: str,
    *,
    read: Role = Role.STAFF,
    write: Role = Role.STAFF,
    scope: Scope = Scope.ADMIN,
    of: str = "",
    bodies: dict[str, Any] | None = None,
) -> Access:
    """Return the row of a view of the API. `GET` brings `HEAD` along, and all of them know `OPTIONS`."""
    names = {"OPTIONS", *methods.split()} | ({"HEAD"} if "GET" in methods.split() else set())
    return Access(frozenset(names), read, write, scope, of, bodies or {})


def page(methods: str = "GET HEAD", *, of: str = "") -> Access:
    """Return the row of a page that everybody may see."""
    return Access(frozenset(methods.split()), Role.EVERYBODY, Role.EVERYBODY, of=of, is_page=True)


PUBLIC: dict[str, Any] = {"read": Role.EVERYBODY}
OPEN: dict[str, Any] = {"read": Role.EVERYBODY, "write": Role.EVERYBODY}
OWN: dict[str, Any] = {"read": Role.SIGNED_IN, "write": Role.SIGNED_IN}
ANY_METHOD = " ".join(METHODS)

MATRIX: dict[str, Access] = {
    "": page(),
    "albums": page(),
    "albums/<album_id>": page(of="album"),
    "images/<image_id>": page(of="image"),
    "admin": page(ANY_METHOD),
    "api/admin/audit": api("GET"),
    "api/admin/config/cache": api("GET"),
    "api/admin/config/reload": api("POST"),
    "api/admin/disk-stats": api("GET"),
    "api/albums/<album_id>/labels/analytics": api("GET", of="album"),
    "api/albums/<pk>/render": api("GET", of="album"),
    "api/albums/<pk>/rows.csv": api("GET PUT", of="album"),
    "api/albums": api("GET POST", bodies={"POST": {"name": "cards"}}, **PUBLIC),
    "api/albums/<pk>": api(
        "GET PATCH DELETE", of="album", bodies={"PATCH": {"description": "All 54"}}, **PUBLIC
    ),
    "api/albums/<pk>/archive": api("GET", of="album", **PUBLIC),
    "api/albums/<pk>/clone": api("POST", of="album", **PUBLIC),
    "api/albums/<pk>/cover": api("POST", of="album", bodies={"POST": {"image": None}}, **PUBLIC),
    "api/albums/<pk>/generate": api(
        "POST", scope=Scope.GENERATE, of="album", bodies={"POST": {"theme": "linocut"}}
    ),
    "api/albums/<pk>/images": api("POST PATCH DELETE", of="album", **PUBLIC),
    "api/albums/<pk>/merge": api("POST", of="album", **PUBLIC),
    "api/auth/done": page("GET HEAD OPTIONS"),
    "api/auth/google/callback": page("GET HEAD OPTIONS"),
    "api/auth/login": page("GET HEAD OPTIONS"),
    "api/auth/logout": page("POST OPTIONS"),
    "api/auth/me": api("GET", **OPEN),
    "api/auth/tokens": api("GET POST", bodies={"POST": {"name": "laptop", "scopes": ["read"]}}, **OWN),
    "api/auth/tokens/<pk>": api("GET DELETE", of="token", **OWN),
    "api/config": api("GET PATCH", bodies={"PATCH": {"engine": {"idle_seconds": 299}}}),
    "api/docs": page(ANY_METHOD),
    "api/docs/": page(),
    "api/generate": api("POST", scope=Scope.GENERATE, bodies={"POST": {"prompt": "a red heart"}}),
    "api/health": api("GET", **OPEN),
    "api/health/live": api("GET", **OPEN),
    "api/health/ready": api("GET", **OPEN),
    "api/images": api("GET", **PUBLIC),
    "api/images/upload": api("POST"),
    "api/images/<image_id>/labels": api(
        "GET POST", of="image", bodies={"POST": {"kind": "tag", "text": "kettle"}}, **PUBLIC
    ),
    "api/images/<image_id>/labels/<pk>": api(
        "GET PATCH DELETE", of="label", bodies={"PATCH": {"text": "a blue kettle"}}, **PUBLIC
    ),
    "api/images/<image_id>/labels/history": api("GET", of="image"),
    "api/images/<pk>": api("GET PATCH DELETE", of="image", bodies={"PATCH": {"rating": 3}}, **PUBLIC),
    "api/images/<pk>/file": api("GET", of="image", **PUBLIC),
    "api/images/<pk>/lineage": api("GET", of="image", **PUBLIC),
    "api/images/<pk>/recall": api("GET", of="image"),
    "api/images/<pk>/used-in": api("GET", of="image", **PUBLIC),
    "api/images/trash/purge": api("POST"),
    "api/images/trash/purge/<pk>": api("GET", of="trash_purge"),
    "api/images/<pk>/purge": api("POST", of="image", **PUBLIC),
    "api/images/<pk>/restore": api("POST", of="image", **PUBLIC),
    "api/images/<pk>/thumbnail": api("GET", of="image", **PUBLIC),
    "api/jobs/artifacts/purge": api("POST"),
    "api/jobs/artifacts/purge/<pk>": api("GET", of="jobs_purge"),
    "api/jobs": api("GET", scope=Scope.GENERATE),
    "api/set-runs": api("GET", scope=Scope.GENERATE),
    "api/set-runs/<pk>": api("GET DELETE", scope=Scope.GENERATE, of="set_run"),
    "api/set-runs/<pk>/contact-sheet": api("GET", scope=Scope.GENERATE, of="set_run"),
    "api/set-runs/<pk>/items": api("GET", of="set_run"),
    "api/set-runs/<pk>/retry": api("POST", scope=Scope.GENERATE, of="set_run"),
    "api/themes/random": api("GET", **OPEN),
    "api/jobs/<pk>": api(
        "GET PATCH DELETE", scope=Scope.GENERATE, of="job", bodies={"PATCH": {"priority": 5}}
    ),
    "api/jobs/<pk>/events": api("GET", scope=Scope.GENERATE, of="job"),
    "api/jobs/<pk>/retry": api("POST", scope=Scope.GENERATE, of="job"),
    "api/jobs/cancel": api("POST", scope=Scope.GENERATE, bodies={"POST": {"status": "queued"}}),
    "api/queue": api("GET"),
    "api/queue/pause": api("POST"),
    "api/queue/resume": api("POST"),
    "api/labels/bulk": api("GET POST"),
    "api/labels/bulk/<pk>": api("GET", of="label_edit"),
    "api/labels/bulk/<pk>/undo": api("POST", of="label_edit"),
    "api/labeling/images": api("POST", scope=Scope.TRAIN),
    "api/labeling/jobs": api("GET", scope=Scope.TRAIN),
    "api/labeling/jobs/<pk>": api("GET", scope=Scope.TRAIN, of="labeling_job"),
    "api/labeling/jobs/<pk>/cancel": api("POST", scope=Scope.TRAIN, of="labeling_job"),
    "api/labeling/jobs/<pk>/items": api("GET", of="labeling_job"),
    "api/loras": api("GET POST", scope=Scope.TRAIN, **PUBLIC),
    "api/loras/<pk>": api(
        "GET PATCH DELETE",
        scope=Scope.TRAIN,
        of="adapter",
        bodies={"PATCH": {"description": "In ink"}},
        **PUBLIC,
    ),
    "api/loras/<pk>/preview": api("GET POST DELETE", scope=Scope.TRAIN, of="adapter", **PUBLIC),
    "api/models": api(
        "GET POST",
        scope=Scope.TRAIN,
        bodies={"POST": {"name": "mini", "kind": "hub", "source": "org/mini"}},
        **PUBLIC,
    ),
    "api/models/<pk>": api(
        "GET PATCH DELETE",
        scope=Scope.TRAIN,
        of="model",
        bodies={"PATCH": {"default_steps": 20}},
        **PUBLIC,
    ),
    "api/models/<pk>/probe": api("POST", scope=Scope.TRAIN, of="model", **PUBLIC),
    "api/training": api("GET POST", scope=Scope.TRAIN, **PUBLIC),
    "api/training/<pk>": api(
        "GET PATCH",
        scope=Scope.TRAIN,
        of="training_run",
        bodies={"PATCH": {"description": "With stripes"}},
        **PUBLIC,
    ),
    "api/training/<pk>/cancel": api("POST", scope=Scope.TRAIN, of="training_run", **PUBLIC),
    "api/training/<pk>/checkpoints": api("GET", scope=Scope.TRAIN, of="training_run"),
    "api/training/<pk>/checkpoints/<checkpoint_id>/pin": api(
        "POST DELETE", scope=Scope.TRAIN, of="training_run"
    ),
    "api/training/<pk>/checkpoints/<checkpoint_id>/promote": api(
        "POST", scope=Scope.TRAIN, of="training_run"
    ),
    "api/training/<pk>/clone": api("POST", scope=Scope.TRAIN, of="training_run", **PUBLIC),
    "api/training/<pk>/events": api("GET", scope=Scope.TRAIN, of="training_run"),
    "api/training/<pk>/logs": api("GET", scope=Scope.TRAIN, of="training_run"),
    "api/training/<pk>/metrics": api("GET", scope=Scope.TRAIN, of="training_run", **PUBLIC),
    "api/training/<pk>/resume": api("POST", scope=Scope.TRAIN, of="training_run", **PUBLIC),
    "api/training/<pk>/samples": api("GET", scope=Scope.TRAIN, of="training_run"),
    "api/training/<pk>/samples/<sample_id>/file": api("GET", scope=Scope.TRAIN, of="training_run"),
    "api/training/<pk>/start": api("POST", scope=Scope.TRAIN, of="training_run", **PUBLIC),
    "api/training/artifacts/purge": api("POST"),
    "api/training/artifacts/purge/<pk>": api("GET", of="training_purge"),
    "api/training/loras": api("GET", scope=Scope.TRAIN, **PUBLIC),
    "api/training/loras/<pk>/download": api("GET", scope=Scope.TRAIN, of="trained_adapter"),
    "api/training/recipe-schema": api("GET", **PUBLIC),
    "api/training/stats": api("GET", **PUBLIC),
    "api/scraping/jobs": api("GET", scope=Scope.SCRAPE, **PUBLIC),
    "api/scraping/jobs/<pk>": api("GET", scope=Scope.SCRAPE, of="scrape_job", **PUBLIC),
    "api/scraping/jobs/<pk>/cancel": api("POST", scope=Scope.SCRAPE, of="scrape_job", **PUBLIC),
    "api/scraping/jobs/<pk>/events": api("GET", scope=Scope.SCRAPE, of="scrape_job"),
    "api/scraping/jobs/<pk>/hosts": api("GET", scope=Scope.SCRAPE, of="scrape_job"),
    "api/scraping/jobs/<pk>/items": api("GET", scope=Scope.SCRAPE, of="scrape_job"),
    "api/scraping/jobs/<pk>/logs": api("GET", scope=Scope.SCRAPE, of="scrape_job"),
    "api/scraping/jobs/<pk>/pages": api("GET", scope=Scope.SCRAPE, of="scrape_job"),
    "api/scraping/jobs/<pk>/retry": api("POST", scope=Scope.SCRAPE, of="scrape_job", **PUBLIC),
    "api/scraping/jobs/<pk>/review": api("POST", scope=Scope.SCRAPE, of="scrape_job", **PUBLIC),
    "api/scraping/start": api(
        "POST", scope=Scope.SCRAPE, bodies={"POST": {"url": "https://gallery.example/"}}
    ),
    "api/scraping/stats": api("GET", **PUBLIC),
    "api/scraping/artifacts/purge": api("POST"),
    "api/scraping/artifacts/purge/<pk>": api("GET", of="scraping_purge"),
    "api/schema/": api("GET", **OPEN),
    "api/training/albums": api("GET", **PUBLIC),
    "metrics": api("GET"),
    "api/training/preflight": api("POST", scope=Scope.TRAIN),
}

ADMIN_PAGES: dict[str, Role] = {
    "admin/": Role.STAFF,
    "admin/login/": Role.EVERYBODY,
    "admin/logout/": Role.EVERYBODY,
    "admin/password_change/": Role.STAFF,
    "admin/password_change/done/": Role.STAFF,
    "admin/autocomplete/": Role.NOBODY,  # who does not say for which field is refused, whoever asks
    "admin/jsi18n/": Role.STAFF,
    "admin/cockpit/": Role.STAFF,
    "admin/cockpit/reload/": Role.STAFF,
    "admin/r/<content_type_id>/<object_id>/": Role.STAFF,
    "admin/<app_label>/": Role.STAFF,
    "admin/<url>": Role.STAFF,
}
"""Pages of the admin that belong to no model."""

NOTHING, LOOK, ALL = "", "view", "view add change delete"

ACTING = {"<id>/act/": "change"}
OF_JOBS = ACTING | {"pause/": "change", "resume/": "change"}

ADMIN_EXTRAS: dict[str, dict[str, str]] = {
    "albums.image": {"upload/": "change"},
    "auth.user": {"<id>/password/": "change"},
    "generation.generationjob": OF_JOBS,
    "generation.setrun": ACTING,
    "operations.disksnapshot": {"chart/": "view"},
    "scraping.scrapedimage": {"<id>/thumbnail/": "view"},
    "scraping.scrapejob": OF_JOBS | {"<id>/lookalikes/": "change", "<id>/review/": "change"},
    "training.labelingjob": OF_JOBS,
    "training.trainingrun": OF_JOBS,
}
"""Pages that one model has beside those of all, and what they need."""

ADMIN_MODELS: dict[str, tuple[str, str]] = {
    "accounts.apitoken": ("view change", "view change delete"),
    "accounts.auditentry": (LOOK, LOOK),
    "albums.album": (ALL, ALL),
    "albums.image": (
        "view change",
        "view change",
    ),  # they are made by uploads and jobs, and leave by the trash
    "albums.labeledit": ("view change", "view change"),  # to take them back on the list
    "auth.group": (NOTHING, ALL),
    "auth.user": (NOTHING, ALL),
    "django_q.failure": (NOTHING, "view change delete"),
    "django_q.ormq": (NOTHING, "view change delete"),
    "django_q.schedule": (NOTHING, ALL),
    "django_q.success": (NOTHING, "view change delete"),
    "generation.generationjob": (
        "view change",
        "view change",
    ),  # to cancel on the list: a job's own page is read only
    "generation.setrun": ("view change", "view change"),  # the same
    "jobs.workerpresence": (LOOK, LOOK),
    "scraping.hostrecord": ("view change", "view change"),  # to forgive hosts on the list
    "scraping.scrapedimage": (LOOK, LOOK),
    "scraping.scrapedpage": (LOOK, LOOK),
    "scraping.scrapejob": ("view add change", "view add change"),  # to act on crawls: a page is read only
    "scraping.sitefile": (LOOK, LOOK),
    "operations.diskalert": (LOOK, LOOK),
    "operations.disksnapshot": (LOOK, LOOK),
    "operations.notice": (LOOK, LOOK),
    "operations.purge": ("view add", "view add"),  # to ask for one: its rows write themselves
    "socialaccount.socialaccount": (NOTHING, ALL),
    "training.adapter": (ALL, ALL),
    "training.basemodel": (ALL, ALL),
    "training.labelingjob": ("view change", "view change"),  # to cancel on the list
    "training.trainingrun": ("view change", "view change"),  # to act on runs: what a page says is read only
}
"""What staff, and what superusers may do on the pages of each model."""
