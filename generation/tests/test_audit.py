"""What the audit trail keeps of jobs: who asked and who cancelled, and never the prompt."""

import json

import pytest
from django.test import Client
from django.urls import reverse

from generation.models import GenerationJob
from generation.tests.factories import GenerationJobFactory, starter_model
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus

PROMPT = "a violet zeppelin over the silent harbour"


@pytest.fixture
def staff(db):
    starter_model()
    client = Client(raise_request_exception=False)
    client.force_login(UserFactory(staff=True, username="ada"))
    return client


def generate(client):
    body = {"prompt": PROMPT, "negative_prompt": PROMPT.upper()}
    return client.post("/api/generate", body, content_type="application/json")


def test_a_job_is_recorded_without_its_prompt(staff):
    job = generate(staff).json()

    [entry] = AuditEntry.objects.filter(action="generationjob.create")
    assert (entry.actor_name, entry.target_id, entry.after["n"]) == ("ada", job["id"], 1)
    assert entry.after["prompt"]["length"] == len(PROMPT)
    assert "zeppelin" not in json.dumps([entry.after, entry.target_label]).lower()


def test_a_cancelled_job_is_recorded_through_the_api_and_the_admin(staff):
    one, two = (GenerationJobFactory(status=JobStatus.QUEUED) for _ in range(2))

    staff.delete(f"/api/jobs/{one.pk}")
    staff.post(
        reverse("admin:generation_generationjob_changelist"),
        {"action": "cancel", "_selected_action": [str(two.pk)]},
    )

    by_api = AuditEntry.objects.get(action="generationjob.cancel")
    assert (by_api.target_id, by_api.via) == (str(one.pk), "session")
    assert (by_api.before, by_api.after) == ({"status": "queued"}, {"status": "cancelled"})
    by_admin = AuditEntry.objects.get(action="generationjob.cancel_many")
    assert (by_admin.via, by_admin.after) == ("admin", {"pk__in": str(two.pk), "jobs": 1})


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_recorded_is_not_done(staff, monkeypatch):
    waiting = GenerationJobFactory(status=JobStatus.QUEUED)

    def refuse(*_, **__):
        raise RuntimeError("the trail cannot be written")

    monkeypatch.setattr(AuditEntry, "save", refuse)

    assert staff.delete(f"/api/jobs/{waiting.pk}").status_code == 500
    assert generate(staff).status_code == 500
    assert list(GenerationJob.objects.values_list("status", flat=True)) == ["queued"]
