from functools import lru_cache
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth.backends import BaseBackend

from imagehub.accounts.models import ApiToken, AuditEntry

ACTIONS = ("view", "add", "change", "delete")

LESS: dict[type, tuple[str, ...]] = {ApiToken: ("view", "change"), AuditEntry: ("view",)}
"""Models of ours on which staff may not do everything."""


MORE = frozenset({"operations.reload_configuration"})
"""What staff may do that is done to no row."""


class StaffPermissions(BaseBackend):
    """Lets active staff work in the admin with the rows of ImageHub. Nobody signs in by it.

    Users, groups and everything of Django-Q are not among them: whoever can edit a user can become anybody, and a
    schedule calls any function there is. These are for superusers.
    """

    def get_user_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """Return the names of permissions; on a single row there are none beyond these."""
        if obj is not None or not (user_obj.is_active and user_obj.is_staff):
            return set()
        return set(_of_staff())

    def has_module_perms(self, user_obj: Any, app_label: str) -> bool:
        """Tell whether an app is shown to somebody."""
        return any(name.partition(".")[0] == app_label for name in self.get_user_permissions(user_obj))


@lru_cache(maxsize=1)
def _of_staff() -> frozenset[str]:
    return frozenset(
        f"{model._meta.app_label}.{action}_{model._meta.model_name}"
        for model in apps.get_models()
        if model.__module__.partition(".")[0] in settings.OWN_PACKAGES
        for action in LESS.get(model, ACTIONS)
    ).union(MORE)
