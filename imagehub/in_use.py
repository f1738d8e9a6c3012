"""Is somebody still using this? What every purge asks before it deletes for good.

Apps further up use rows of those below: a training run an image, a job an adapter. They say so by a check that they
register in ``AppConfig.ready``, so that nothing below has to know them.
"""

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.db import models

from imagehub.errors import Conflict

Check = Callable[[list[Any]], Mapping[Any, str]]
"""Takes primary keys and returns those that are in use, each with a sentence that says by what."""

_checks: dict[type[models.Model], list[Check]] = defaultdict(list)


class InUse(Conflict):
    code = "in_use"
    title = "Something still uses it"


def register(model: type[models.Model], check: Check) -> None:
    """Let a check be asked before rows of a model are deleted for good. Asked twice, it is registered once."""
    if check not in _checks[model]:
        _checks[model].append(check)


def unregister(model: type[models.Model], check: Check) -> None:
    """Take a check back."""
    _checks[model].remove(check)


def in_use(model: type[models.Model], keys: Iterable[uuid.UUID | int]) -> dict[Any, str]:
    """Return which of these rows are in use, and by what, as far as anybody knows."""
    keys = list(keys)
    found: dict[Any, str] = {}
    for check in _checks[model] if keys else ():
        found = {**check(keys), **found}
    return found
