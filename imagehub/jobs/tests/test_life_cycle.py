"""Every change of status there is, and that there are no others."""

import uuid

import pytest
from django.db.models.functions import Now
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.lease import Lease, LeaseLost
from imagehub.jobs.models import LEASE, TRANSITIONS, Job, JobStatus, lease_end
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory

EXPIRED = Now() - LEASE


def put(job: Errand, status: JobStatus) -> None:
    """Force a row into a state, past the life cycle."""
    running, finished = status == JobStatus.RUNNING, status in JobStatus.FINISHED
    Errand.objects.filter(pk=job.pk).update(
        status=status,
        token=uuid.uuid4() if running else None,
        lease_until=lease_end() if running else None,
        queued_at=Now(),
        finished_at=Now() if finished else None,
    )


@pytest.mark.django_db
@pytest.mark.parametrize("source", JobStatus)
@pytest.mark.parametrize("target", JobStatus)
def test_a_job_moves_along_the_table_and_nowhere_else(source, target):
    job = ErrandFactory()
    put(job, source)
    changes = {"token": uuid.uuid4(), "lease_until": lease_end()} if target == JobStatus.RUNNING else {}

    if target in TRANSITIONS[source]:
        assert Errand.objects.filter(pk=job.pk).move(source, target, **changes) == 1
        assert Errand.objects.get(pk=job.pk).status == target
    else:
        with pytest.raises(ValueError, match="cannot go"):
            Errand.objects.filter(pk=job.pk).move(source, target, **changes)
        assert Errand.objects.get(pk=job.pk).status == source


@pytest.mark.django_db
def test_a_job_that_stands_elsewhere_is_not_moved():
    job = ErrandFactory()
    put(job, JobStatus.CANCELLED)

    assert Errand.objects.filter(pk=job.pk).move(JobStatus.QUEUED, JobStatus.CANCELLED) == 0


@pytest.mark.django_db
@pytest.mark.parametrize("source", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_only_resumable_kinds_come_back(source, monkeypatch):
    job = ErrandFactory()
    put(job, source)
    with pytest.raises(ValueError, match="cannot go"):
        Errand.objects.filter(pk=job.pk).move(source, JobStatus.QUEUED)

    monkeypatch.setattr(Errand, "RESUMABLE", True)

    assert Errand.objects.filter(pk=job.pk).move(source, JobStatus.QUEUED) == 1


ACTIONS = (
    "enqueue", "claim", "complete", "fail", "cancel", "request_cancel", "hand_back", "renew", "expire", "reap",
)  # fmt: skip


@pytest.mark.django_db
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(st.sampled_from(ACTIONS), max_size=25))
def test_no_sequence_of_events_breaks_the_life_cycle(actions):
    """Plays any sequence of what users, workers and reapers do, and checks each step against the table."""
    owner, _ = UserFactory._meta.model.objects.get_or_create(username="owner")
    job = Errand.objects.create(owner=owner)
    rows = Errand.objects.filter(pk=job.pk)
    leases: list[Lease] = []
    for action in actions:
        before = rows.get()
        _act(action, rows, leases)
        after = rows.get()
        if after.status != before.status:
            allowed = TRANSITIONS[JobStatus(before.status)]
            # Reaping may re-queue and claim may follow, but each single action is one transition.
            assert after.status in allowed, f"{action}: {before.status} -> {after.status}"
        assert (after.token is not None) == (after.status == JobStatus.RUNNING)
        assert (after.finished_at is not None) == (after.status in JobStatus.FINISHED)
        assert after.attempt <= after.max_attempts
    rows.delete()


def _act(action: str, rows, leases: list[Lease]) -> None:
    if action == "claim":
        # Jobs of other examples do not exist: each deletes its own.
        claimed: Job | None = Errand.objects.claim(worker="w")
        if claimed:
            leases.append(Lease(claimed))
    elif action == "expire":
        rows.filter(status=JobStatus.RUNNING).update(lease_until=EXPIRED)
    elif action in {"enqueue", "request_cancel", "reap"}:
        getattr(rows, action)()
    else:
        # Every worker that ever held the job tries: the fence lets only the current one write.
        current = rows.get().token
        arguments = {"fail": ("code", "detail")}.get(action, ())
        for lease in leases:
            try:
                getattr(lease, action)(*arguments)
            except LeaseLost:
                continue
            assert current is not None, f"{action} succeeded without a claim"
