import django_filters

from imagehub.accounts.models import AuditEntry
from imagehub.api.filters import TimeFilter


class AuditFilter(django_filters.FilterSet):
    """Which entries of the audit trail to list."""

    actor = django_filters.CharFilter("actor_name", label="The name of a user.")
    action = django_filters.CharFilter(label="Such as `album.change` or `sign_in_failed`.")
    target_type = django_filters.CharFilter(label="Such as `albums.album`.")
    target = django_filters.CharFilter("target_id", label="The id of a row.")
    at_after = TimeFilter("at", lookup_expr="gt")
    at_before = TimeFilter("at", lookup_expr="lt")

    class Meta:
        model = AuditEntry
        fields: tuple[str, ...] = ()
