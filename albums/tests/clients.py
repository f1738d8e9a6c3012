"""Asking as somebody, and reading what came of it."""

from rest_framework.test import APIClient

from imagehub.accounts.models import AuditEntry


def client_of(user=None):
    client = APIClient()
    client.force_authenticate(user)
    return client


def ids(response):
    assert response.status_code == 200, response.content
    return [row["id"] for row in response.json()["results"]]


def recorded_in_admin():
    """Return the actions that the audit trail has from the admin, in their order."""
    return list(AuditEntry.objects.filter(via="admin").order_by("id").values_list("action", flat=True))
