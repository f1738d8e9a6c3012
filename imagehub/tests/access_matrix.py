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
    "albums/<album_id>": page(of="album"),
    "admin": page(ANY_METHOD),
    "api/admin/audit": api("GET"),
    "api/admin/config/cache": api("GET"),
    "api/admin/config/reload": api("POST"),
    "api/albums": api("GET", **PUBLIC),
    "api/albums/<pk>": api("GET", of="album", **PUBLIC),
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
    "api/images/<pk>": api("GET", of="image", **PUBLIC),
    "api/images/<pk>/file": api("GET", of="image", **PUBLIC),
    "api/images/<pk>/thumbnail": api("GET", of="image", **PUBLIC),
    "api/jobs": api("GET", scope=Scope.GENERATE),
    "api/jobs/<pk>": api("GET DELETE", scope=Scope.GENERATE, of="job"),
    "api/schema/": api("GET", **OPEN),
}

ADMIN_PAGES: dict[str, Role] = {
    "admin/": Role.STAFF,
    "admin/login/": Role.EVERYBODY,
    "admin/logout/": Role.EVERYBODY,
    "admin/password_change/": Role.STAFF,
    "admin/password_change/done/": Role.STAFF,
    "admin/autocomplete/": Role.NOBODY,  # no form of ours looks anything up there
    "admin/jsi18n/": Role.STAFF,
    "admin/r/<content_type_id>/<object_id>/": Role.STAFF,
    "admin/<app_label>/": Role.STAFF,
    "admin/<url>": Role.STAFF,
}
"""Pages of the admin that belong to no model."""

NOTHING, LOOK, ALL = "", "view", "view add change delete"

ADMIN_MODELS: dict[str, tuple[str, str]] = {
    "accounts.apitoken": ("view change", "view change delete"),
    "accounts.auditentry": (LOOK, LOOK),
    "albums.album": (ALL, ALL),
    "albums.image": (LOOK, LOOK),
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
    "jobs.workerpresence": (LOOK, LOOK),
    "socialaccount.socialaccount": (NOTHING, ALL),
    "training.basemodel": (ALL, ALL),
}
"""What staff, and what superusers may do on the pages of each model."""
