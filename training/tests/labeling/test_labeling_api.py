from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from albums.services import trash_images
from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus
from imagehub.operations import purges
from imagehub.operations.models import Purge
from training.models import LabelingItem, LabelingJob
from training.services import labeling

pytestmark = pytest.mark.django_db

STARTER = "labeling: {captioner: starter, tagger: starter, nsfw: starter}\n"


@pytest.fixture(autouse=True)
def _starter(set_config):
    set_config(STARTER)


@pytest.fixture
def staff(client):
    client.force_login(UserFactory(staff=True, username="ada"))
    return client


def post(client, url="/api/labeling/images", **body):
    return client.post(url, body, content_type="application/json")


def waiting_job(count=2):
    images = [ImageFactory() for _ in range(count)]
    ids = [image.pk for image in images]
    return labeling.submit_labeling(owner=UserFactory(staff=True), task="caption", image_ids=ids)


def test_images_of_an_album_are_labeled_in_its_order(staff):
    album = AlbumFactory(images=[ImageFactory() for _ in range(3)])

    response = post(staff, album=str(album.pk), task="tag", overwrite=True)

    assert response.status_code == 201
    body = response.json()
    assert response["Location"] == f"/api/labeling/jobs/{body['id']}"
    assert (
        body
        | {
            "kind": "labeling",
            "status": "queued",
            "task": "tag",
            "model": "starter",
            "overwrite": True,
            "total": 3,
            "owner": "ada",
            "counts": {"waiting": 3, "labeled": 0, "kept": 0, "failed": 0},
        }
        == body
    )
    assert response["RateLimit-Limit"] == "30"
    items = staff.get(f"{response['Location']}/items").json()["results"]
    in_order = album.memberships.in_order().values_list("image_id", flat=True)
    assert [item["image"] for item in items] == [str(pk) for pk in in_order]
    assert AuditEntry.objects.filter(action="labelingjob.create", actor_name="ada").count() == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"task": "caption"}, "/image_ids"),
        ({"task": "caption", "image_ids": []}, "/image_ids"),
        ({"task": "caption", "image_ids": ["12"]}, "/image_ids/0"),
        ({"task": "caption", "album": "12"}, "/album"),
        ({"task": "paint", "image_ids": ["{image}"]}, "/task"),
        ({"image_ids": ["{image}"]}, "/task"),
        ({"task": "caption", "image_ids": ["{image}"], "overwrite": "yes"}, "/overwrite"),
        ({"task": "caption", "image_ids": ["{image}"], "model": "x"}, "/model"),
    ],
)
def test_what_is_wrong_is_pointed_at(staff, body, pointer):
    image = str(ImageFactory().pk)
    body = {name: [image] if value == ["{image}"] else value for name, value in body.items()}

    response = post(staff, **body)

    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


def test_what_is_impossible_is_told_with_the_reason_and_costs_nothing(staff, set_config):
    image = ImageFactory()
    ask = {"task": "caption", "image_ids": [str(image.pk)]}
    set_config("labeling: {}\n")
    without_model = post(staff, **ask)
    set_config(STARTER)
    trash_images([image.pk])
    without_image = post(staff, **ask)

    assert (without_model.status_code, without_model.json()["code"]) == (422, "no_labeling_model")
    assert "labeling.captioner" in without_model.json()["detail"]
    assert (without_image.status_code, without_image.json()["code"]) == (422, "nothing_to_label")
    assert not LabelingJob.objects.exists()


def test_a_refusal_for_the_rate_leaves_no_job(staff, set_config):
    set_config(STARTER + "rate_limits: {labeling: {limit: 1, window_seconds: 3600}}\n")
    body = {"task": "caption", "image_ids": [str(ImageFactory().pk)]}

    assert post(staff, **body).status_code == 201
    refused = post(staff, **body)

    assert refused.status_code == 429
    assert int(refused["Retry-After"]) > 0
    assert LabelingJob.objects.count() == 1


def test_jobs_are_listed_and_filtered(staff):
    job = waiting_job()
    labeling.cancel_labeling(waiting_job())

    assert len(staff.get("/api/labeling/jobs").json()["results"]) == 2
    (row,) = staff.get("/api/labeling/jobs?status=queued&task=caption").json()["results"]
    assert row["id"] == str(job.pk)
    assert row["queue_position"] == 1
    assert staff.get("/api/labeling/jobs?staus=queued").status_code == 400


def test_a_page_of_jobs_takes_as_many_queries_as_one(staff, django_assert_max_num_queries):
    for _ in range(4):
        waiting_job(1)

    with django_assert_max_num_queries(12):
        assert len(staff.get("/api/labeling/jobs").json()["results"]) == 4


def test_items_are_filtered_by_state(staff):
    job = waiting_job(3)
    LabelingItem.objects.filter(job=job, position=1).update(state="failed", detail="It is no drawing.")

    (item,) = staff.get(f"/api/labeling/jobs/{job.pk}/items?state=failed").json()["results"]

    assert (item["position"], item["detail"]) == (1, "It is no drawing.")
    assert staff.get(f"/api/labeling/jobs/{job.pk}").json()["counts"]["failed"] == 1


def test_a_waiting_job_is_cancelled_and_a_running_one_asked(staff):
    waiting, running = waiting_job(), waiting_job()
    LabelingJob.objects.filter(pk=running.pk).update(
        status=JobStatus.RUNNING, token=running.pk, lease_until=timezone.now()
    )

    answers = [post(staff, f"/api/labeling/jobs/{job.pk}/cancel") for job in (waiting, running, waiting)]

    assert [answer.status_code for answer in answers] == [200, 202, 409]
    assert answers[2].json()["code"] == "already_finished"
    assert AuditEntry.objects.filter(action="labelingjob.cancel").count() == 2


def test_it_is_for_staff(client):
    assert post(client).status_code == 401
    client.force_login(UserFactory())
    assert post(client).status_code == 403
    assert client.get("/api/labeling/jobs").status_code == 403


def test_the_admin_shows_jobs_and_cancels_them(staff):
    job = waiting_job()
    LabelingItem.objects.filter(job=job, position=1).update(state="failed", detail="It is no drawing.")

    page = staff.get(reverse("admin:training_labelingjob_change", args=[job.pk])).content.decode()
    assert "1 waiting, 1 failed" in page
    assert "It is no drawing." in page

    action = {"action": "cancel", "_selected_action": [job.pk]}
    for words in ("is cancelled, or about to be.", "The job is cancelled already."):
        page = staff.post(
            reverse("admin:training_labelingjob_changelist"), action, follow=True
        ).content.decode()
        assert words in page
    job.refresh_from_db()
    assert job.status == JobStatus.CANCELLED


@pytest.mark.parametrize(("days", "is_kept"), [(0, True), (30, False), (60, True)])
def test_what_became_of_each_image_is_forgotten_by_the_clock(staff, set_config, days, is_kept):
    set_config(f"training: {{retention_days: {days}}}\n{STARTER}")
    ended, waits = waiting_job(), waiting_job()
    long_ago = timezone.now() - timedelta(days=40)
    LabelingJob.objects.update(created_at=long_ago)
    LabelingJob.objects.filter(pk=ended.pk).update(status=JobStatus.CANCELLED, finished_at=long_ago)

    Purge.objects.create(
        kind="training", origin="clock", older_than_days=30, due_on="2026-01-01", state="done"
    )
    purges.see_to_purges()

    assert LabelingItem.objects.filter(job=ended).exists() == is_kept
    assert LabelingItem.objects.filter(job=waits).count() == 2
    assert staff.get(f"/api/labeling/jobs/{ended.pk}").json()["total"] == 2
