"""Set runs in the admin."""

import pytest
from django.test import Client
from django.urls import reverse

from albums.models import Image
from albums.tests.factories import ImageFactory
from generation import services
from generation.models import GenerationJob, SetRun
from generation.tests.decks import THEME, make_deck
from generation.tests.factories import GenerationJobFactory
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus

pytestmark = pytest.mark.django_db

LIST = "admin:generation_setrun_changelist"


@pytest.fixture
def staff():
    return UserFactory(staff=True)


@pytest.fixture
def client(staff):
    client = Client()
    client.force_login(staff)
    return client


@pytest.fixture
def run(staff):
    run = SetRun(owner=staff, template=make_deck(), theme=THEME)
    return services.submit_set_run(run, GenerationJobFactory.build(owner=staff))[0]


def act(client, action, *runs):
    body = {"action": action, "_selected_action": [run.pk for run in runs]}
    return client.post(reverse(LIST), body, follow=True).content.decode()


def test_lists_runs_by_a_constant_number_of_queries(client, run, staff, django_assert_max_num_queries):
    for _ in range(4):
        services.submit_set_run(
            SetRun(owner=staff, template=run.template, theme=THEME), GenerationJobFactory.build(owner=staff)
        )

    with django_assert_max_num_queries(12):
        page = client.get(reverse(LIST)).content.decode()

    assert page.count("0 of 3") == 5
    assert page.count("Queued") >= 5


def test_shows_the_pictures_of_a_run_and_where_the_rest_is(client, run):
    job = GenerationJob.objects.get(set_run=run, set_index=1)
    image = ImageFactory(source_kind=Image.SourceKind.GENERATION, source_id=job.pk)

    page = client.get(reverse("admin:generation_setrun_change", args=[run.pk])).content.decode()

    assert f"/api/images/{image.pk}/thumbnail" in page
    assert f"/api/set-runs/{run.pk}/contact-sheet" in page
    assert 'name="theme"' not in page
    jobs = client.get(f"{reverse('admin:generation_generationjob_changelist')}?set_run__id__exact={run.pk}")
    assert (jobs.status_code, jobs.context["cl"].result_count) == (200, 3)


def test_cancels_the_rest_and_retries_it(client, run):
    assert "3 pictures are not made" in act(client, "cancel", run)
    assert "already" in act(client, "cancel", run)

    assert "3 pictures are queued again" in act(client, "retry", run)
    assert services.progress_of([run])[run.pk].status == JobStatus.QUEUED
    assert "Nothing of this set run" in act(client, "retry", run)
