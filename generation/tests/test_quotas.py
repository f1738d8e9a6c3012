"""How much each user may have waiting, and may ask for in a day."""

from datetime import timedelta

import pytest
from django.db.transaction import TransactionManagementError
from django.utils import timezone
from rest_framework.test import APIClient

from generation.models import GenerationJob
from generation.services import QuotaExceeded, check_quota, submit_generation
from generation.tests.factories import GenerationJobFactory, starter_model
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus
from imagehub.tests.together import at_once

CONFIG = "generation: {{quotas: {{{}}}}}\nrate_limits: {{generate: {{limit: 0, window_seconds: 60}}}}\nstorage: {{minimum_free_bytes: 0}}\n"


@pytest.fixture
def user():
    starter_model()
    return UserFactory(staff=True, username="ada")


@pytest.fixture
def staff(user):
    client = APIClient()
    client.force_authenticate(user)
    return client


def ask(client, **fields):
    return client.post("/api/generate", {"prompt": "a red heart"} | fields, format="json")


@pytest.mark.django_db
class TestQuotas:
    def test_waiting_pictures_are_limited_for_each_owner(self, staff, set_config):
        set_config(CONFIG.format("queued_images: 5"))
        assert ask(staff, n=4).status_code == 201

        response = ask(staff, n=2)

        problem = response.json()
        assert (response.status_code, problem["code"], problem["limit"]) == (429, "quota_exceeded", 5)
        assert problem["detail"] == "You may have 5 pictures waiting; 4 wait, and this asks for 2 more."
        assert int(response["Retry-After"]) == problem["retry_after"] > 0
        assert ask(staff, n=1).status_code == 201
        other = APIClient()
        other.force_authenticate(UserFactory(staff=True))
        assert ask(other, n=5).status_code == 201

    def test_pictures_of_a_day_are_limited_and_the_wait_is_told(self, staff, user, set_config):
        set_config(CONFIG.format("images_per_day: 5"))
        now = timezone.now()
        for hours, n in ((25, 4), (23, 2), (1, 2)):
            GenerationJobFactory(owner=user, n=n, created_at=now - timedelta(hours=hours))

        response = ask(staff, n=2)

        problem = response.json()
        assert (response.status_code, problem["code"]) == (429, "quota_exceeded")
        assert "you have asked for 4, and this asks for 2 more" in problem["detail"]
        assert problem["retry_after"] == pytest.approx(3600, abs=10)  # when the older one is a day old
        assert ask(staff, n=1).status_code == 201

    def test_pixels_of_a_day_are_limited(self, staff, set_config):
        set_config(CONFIG.format("pixels_per_day: 8192"))

        assert ask(staff, n=1).status_code == 201  # 64 by 64
        assert ask(staff, n=1, width=128).json()["code"] == "quota_exceeded"
        assert ask(staff, n=1).status_code == 201

    def test_pixels_are_counted_beyond_small_integers(self, staff, user, set_config):
        set_config(CONFIG.format("pixels_per_day: 1000000"))
        GenerationJobFactory(owner=user, n=3, width=512, height=512)

        assert ask(staff, n=1).status_code == 201
        assert ask(staff, n=4, width=512, height=512).json()["code"] in {"quota_exceeded", "beyond_quota"}

    def test_what_failed_or_was_cancelled_does_not_count(self, staff, user, set_config):
        set_config(CONFIG.format("images_per_day: 4"))
        for status in (JobStatus.FAILED, JobStatus.CANCELLED):
            GenerationJobFactory(owner=user, n=4, status=status, finished_at=timezone.now())

        assert ask(staff, n=4).status_code == 201

    @pytest.mark.parametrize("quota", ["queued_images: 2", "images_per_day: 2", "pixels_per_day: 5000"])
    def test_what_can_never_fit_is_not_told_to_wait(self, staff, set_config, quota):
        set_config(CONFIG.format(quota))

        response = ask(staff, n=3)

        assert (response.status_code, response.json()["code"]) == (422, "beyond_quota")

    def test_zero_is_no_limit(self, staff, set_config):
        set_config(CONFIG.format("queued_images: 0, images_per_day: 0, pixels_per_day: 0"))

        assert [ask(staff, n=8).status_code for _ in range(3)] == [201] * 3


@pytest.mark.django_db(transaction=True)
def test_a_quota_is_checked_in_the_transaction_that_queues(user):
    with pytest.raises(TransactionManagementError):
        check_quota(user, images=1, pixels=1)


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_no_more_pass_than_may(user, set_config):
    set_config(CONFIG.format("queued_images: 20"))

    def submit(job: GenerationJob) -> bool:
        try:
            return submit_generation(job)[1]
        except QuotaExceeded:
            return False

    model = starter_model()
    jobs = [GenerationJobFactory.build(owner=user, base_model=model, n=3, prompt="x") for _ in range(16)]

    assert sum(at_once(submit, jobs)) == 6
    assert GenerationJob.objects.queued().count() == 6
