"""Changing the configuration while the system runs."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.db import transaction

from imagehub import config
from imagehub.accounts import audit
from imagehub.config_file import editing
from imagehub.config_schema import Config
from imagehub.errors import Invalid


def change_configuration(changes: Mapping[str, Any]) -> Config:
    """Change a part of the configuration, here at once and in other processes with their next look at the file.

    ``changes`` is nested like the configuration; null brings back a default.

    Raises:
        Invalid: it would move files, which are moved first, or choose a program to run, which is up to who may do that.
        ConfigInvalid: the result would break the schema.
        ConfigNotWritable: the file is broken already, or the disk does not let us.
    """
    # The file last: what is not in the audit trail does not happen.
    with editing(settings.CONFIG_FILE, changes) as edit, transaction.atomic():
        _refuse_what_is_not_for_callers(edit.before, edit.after)
        before, after = edit.changes
        audit.record("config.change", before=before, after=after)
        edit.write()
    return config.reload()


def _refuse_what_is_not_for_callers(before: Config, after: Config) -> None:
    """Compare what would be in force, and not what was sent: a null anywhere above takes a value out as well."""
    if after.paths != before.paths:
        raise Invalid(
            "Paths are changed in the file or the environment, by who moves the files.", pointer="/paths"
        )
    if after.training.external != before.training.external:
        raise Invalid(
            "Which program trains is changed in the file, by who may run programs on this machine.",
            pointer="/training/external",
        )


@transaction.atomic
def reload_configuration() -> config.CacheState:
    """Read the file now.

    Raises:
        ConfigBroken: it is broken. The last good configuration stays in force.
    """
    config.reload()
    audit.record("config.reload")
    return config.cache_state()
