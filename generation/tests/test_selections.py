"""Acting on many jobs at once in the admin: one call, one message, and what a retry costs is what it costs in the API."""

import pytest
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from generation.models import GenerationJob, SetRun
from generation.services import selections
from generation.tests.decks import THEME, make_deck
from generation.tests.factories import GenerationJobFactory, starter_model
from imagehub import rate_limits
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus

pytestmark = pytest.mark.django_db

JOBS, RUNS = "admin:generation_generationjob_changelist", "admin:generation_setrun_changelist"


@pytest.fixture
def user():
    starter_model()
    return UserFactory(staff=True)


@pytest.fixture
def act(user):
    """Do something with all rows of a list, also those of other pages; return what is said."""

    def do(action, page=JOBS, **query):
        client = Client()
        client.force_login(user)
        first = (GenerationJob if page == JOBS else SetRun).objects.first()
        body = {"action": action, "_selected_action": [str(first.pk)], "select_across": "1"}
        response = client.post(reverse(page, query=query), body)
        return [str(message) for message in get_messages(response.wsgi_request)]

    return do


def queued(number=1, **fields):
    return GenerationJobFactory.create_batch(
        number, status=JobStatus.QUEUED, queued_at=timezone.now(), **fields
    )


def failed(number=1, **fields):
    return GenerationJobFactory.create_batch(
        number, status=JobStatus.FAILED, finished_at=timezone.now(), **fields
    )


def count(status) -> int:
    return GenerationJob.objects.filter(status=status).count()


def test_all_are_cancelled_by_one_call_with_one_message(act, user):
    def cancel(number) -> tuple[list[str], int]:
        queued(number, owner=user)
        with CaptureQueriesContext(connection) as captured:
            return act("cancel"), len(captured)

    failed(owner=user)
    queued(owner=user)
    GenerationJob.objects.claim(worker="w")
    said_of_few, queries_for_few = cancel(3)
    GenerationJob.objects.filter(status=JobStatus.CANCELLED).delete()
    said_of_many, queries_for_many = cancel(119)

    assert said_of_few == ["3 jobs are cancelled, 1 stopping."]
    assert said_of_many == ["119 jobs are cancelled, 1 stopping."]
    assert queries_for_many <= queries_for_few
    assert (count(JobStatus.CANCELLED), count(JobStatus.FAILED)) == (119, 1)
    assert AuditEntry.objects.filter(action="generationjob.cancel_many").count() == 2
    assert act("cancel", status__exact="failed") == ["0 jobs are cancelled, 0 stopping."]


def test_only_what_the_list_shows_is_acted_on(act, user):
    queued(2, owner=user)
    queued(3)

    assert act("cancel", owner__id__exact=user.pk) == ["2 jobs are cancelled, 0 stopping."]
    assert count(JobStatus.QUEUED) == 3


def test_priorities_change_together_and_stay_within_their_bounds(act, user):
    queued(3, owner=user)
    GenerationJob.objects.filter(pk=GenerationJob.objects.first().pk).update(priority=95)
    failed(owner=user)

    assert act("put_first") == ["3 jobs were put before others, by 10."]
    assert sorted(GenerationJob.objects.queued().values_list("priority", flat=True)) == [10, 10, 100]
    assert act("put_back") == ["3 jobs were put behind others, by 10."]
    assert sorted(GenerationJob.objects.queued().values_list("priority", flat=True)) == [0, 0, 90]
    assert GenerationJob.objects.get(status=JobStatus.FAILED).priority == 0
    assert AuditEntry.objects.filter(action="generationjob.prioritise_many").count() == 2


def test_a_retry_counts_for_the_same_limit_as_the_api(act, user, set_config):
    set_config("rate_limits: {generate: {limit: 10, window_seconds: 60}}\nstorage: {minimum_free_bytes: 0}")
    failed(6, owner=user, n=3)
    queued(owner=user)

    [said] = act("retry")

    assert said.startswith("9 pictures are queued again. Refused: 1. Only what has failed")
    assert "Left as they are: 3. There may be 10 in 60 seconds, and 1 are left." in said
    assert GenerationJob.objects.filter(retry_of__isnull=False).count() == 3
    with pytest.raises(rate_limits.RateLimited):
        rate_limits.charge("generate", f"user:{user.pk}", 2)


def test_a_retry_counts_for_the_same_quotas_as_the_api(act, user, set_config):
    set_config(
        "rate_limits: {generate: {limit: 0, window_seconds: 60}}\nstorage: {minimum_free_bytes: 0}\n"
        "generation: {quotas: {queued_images: 2}}"
    )
    failed(5, owner=user)

    [said] = act("retry")

    assert said.startswith(
        "2 pictures are queued again. Left as they are: 3. You may have 2 pictures waiting"
    )


def test_reasons_are_summed_up(act, user, set_config, monkeypatch):
    set_config("rate_limits: {generate: {limit: 0, window_seconds: 60}}\nstorage: {minimum_free_bytes: 0}")
    monkeypatch.setattr(selections, "MOST_AT_ONCE", 4)
    gone = [{"id": "01a212ab-0000-7000-8000-000000000000", "name": "ink", "weight": 1.0}]
    failed(3, owner=user, loras=gone)
    failed(2, owner=user)

    assert act("retry") == [
        "1 picture is queued again. Refused: 3. Adapters that are not here, or not enabled: “ink”."
        " Left as they are: 1. 4 are tried again at once."
    ]


def test_set_runs_are_cancelled_and_retried_with_one_message_each(act, user, set_config):
    from generation import services

    set_config("rate_limits: {generate: {limit: 8, window_seconds: 60}}\nstorage: {minimum_free_bytes: 0}")
    for _ in range(10):
        run = SetRun(owner=user, template=make_deck(), theme=THEME)
        services.submit_set_run(run, GenerationJobFactory.build(owner=user))

    assert act("cancel", RUNS) == ["30 pictures are not made."]
    assert act("cancel", RUNS) == ["Every picture is finished, failed or cancelled already."]
    [said] = act("retry", RUNS)
    assert said.startswith("24 pictures are queued again. Left as they are: 2. There may be 8 in 60 seconds")
