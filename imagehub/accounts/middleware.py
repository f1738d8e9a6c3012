from collections.abc import Iterator
from contextlib import contextmanager

from django.http import HttpRequest

from imagehub.accounts.audit import answering
from imagehub.middleware import Finish, SurroundingMiddleware


class AuditMiddleware(SurroundingMiddleware):
    """Lets the audit trail know which request is being answered. Stands behind the one that knows the session."""

    @contextmanager
    def around(self, request: HttpRequest) -> Iterator[Finish]:
        with answering(request):
            yield lambda response: response
