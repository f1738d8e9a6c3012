"""Lists whose addresses anybody may have typed."""

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest

from imagehub.database import UNSTORABLE


class StorableChangeList(ChangeList):
    """Refuses to filter by what no row can hold: PostgreSQL would fail over it, and the page with it."""

    def get_filters(self, request: HttpRequest) -> tuple:
        """Return the filters of the list.

        Raises:
            IncorrectLookupParameters: the address asks for a text that cannot be stored. The admin shows the whole list then.
        """
        asked = self.get_filters_params()
        if any(UNSTORABLE.search(text) for texts in asked.values() for text in texts):
            raise IncorrectLookupParameters
        return super().get_filters(request)
