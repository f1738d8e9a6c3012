"""What listeners are told follows from the row alone, and no transition is left out."""

import random

import pytest

from imagehub.jobs.listening import Hub, News, Stage, _current, events_between
from imagehub.jobs.live import Preview
from imagehub.jobs.models import JobStatus
from imagehub.jobs.outlook import Outlook
from imagehub.jobs.tests.factories import ErrandFactory

PENDING, QUEUED, RUNNING = JobStatus.PENDING, JobStatus.QUEUED, JobStatus.RUNNING
COMPLETED, FAILED, CANCELLED = JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED


def news(status: str, attempt: int = 0, **facts) -> News:
    preview = facts.pop("preview", None)
    return News(Stage(status, attempt), {"status": status, "attempt": attempt} | facts, preview)


@pytest.mark.parametrize(
    ("before", "now", "path"),
    [
        ((QUEUED, 0), (QUEUED, 0), []),
        ((PENDING, 0), (CANCELLED, 0), [(CANCELLED, 0)]),
        ((PENDING, 0), (RUNNING, 1), [(QUEUED, 0), (RUNNING, 1)]),
        ((QUEUED, 0), (COMPLETED, 1), [(RUNNING, 1), (COMPLETED, 1)]),
        ((RUNNING, 1), (QUEUED, 1), [(QUEUED, 1)]),
        ((RUNNING, 1), (QUEUED, 0), [(QUEUED, 0)]),  # handed back
        (
            (QUEUED, 0),
            (FAILED, 3),
            [(RUNNING, 1), (QUEUED, 1), (RUNNING, 2), (QUEUED, 2), (RUNNING, 3), (FAILED, 3)],
        ),
        ((RUNNING, 2), (RUNNING, 3), [(QUEUED, 2), (RUNNING, 3)]),
    ],
)
def test_stages_between_two_looks_are_told(before, now, path):
    assert list(Stage(*before).until(Stage(*now))) == [Stage(*stage) for stage in path]


@pytest.mark.parametrize("seed", range(50))
def test_whoever_looks_now_and_then_is_told_the_whole_life(seed):
    chance = random.Random(seed)
    life = [Stage(PENDING, 0), Stage(QUEUED, 0)]
    for attempt in range(1, chance.randrange(2, 5)):
        life += [Stage(RUNNING, attempt), Stage(QUEUED, attempt)]
    life[-1] = Stage(chance.choice([COMPLETED, FAILED, CANCELLED]), life[-1].attempt)
    looks = sorted({0, len(life) - 1, *(chance.randrange(len(life)) for _ in range(3))})

    told = [life[0]]
    for look in looks[1:]:
        told += told[-1].until(life[look])

    assert told == life


def test_what_a_job_is_told_of_its_way_ends_where_its_way_does():
    waited = Outlook(position=3, reason="The queue is paused.")
    ran = Outlook(position=0, eta_seconds=2.0)
    running, waiting = (ErrandFactory.build(status=status, eta_seconds=5.0) for status in (RUNNING, QUEUED))

    assert _current(running, {running.pk: waited}) == Outlook(position=0, eta_seconds=5.0)
    assert _current(waiting, {waiting.pk: ran}) == Outlook()
    assert _current(waiting, {waiting.pk: waited}) == waited


def test_one_look_that_fails_is_not_the_last(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(hub, "_look", lambda wanted: {}["nothing"])

    assert hub._look_in_peace({}) is None


class TestEventsBetween:
    def test_a_newcomer_is_told_the_state(self):
        [event] = events_between(None, news(QUEUED, queue_position=3))

        assert (event.name, event.data["queue_position"]) == ("state", 3)

    def test_progress_is_told_when_it_changes(self):
        before, same, now = (news(RUNNING, 1, step=step) for step in (1, 1, 2))

        assert list(events_between(before, same)) == []
        assert [(event.name, event.data["step"]) for event in events_between(before, now)] == [
            ("progress", 2)
        ]

    def test_whoever_comes_back_is_told_what_was_missed_and_how_it_stands(self):
        told = list(events_between(Stage(QUEUED, 0), news(RUNNING, 2, step=7)))

        assert [(event.name, event.stage.status, event.stage.attempt) for event in told] == [
            ("state", RUNNING, 1),
            ("state", QUEUED, 1),
            ("state", RUNNING, 2),
        ]
        assert told[-1].data["step"] == 7
        assert [event.name for event in events_between(Stage(RUNNING, 2), news(RUNNING, 2))] == ["progress"]

    def test_each_preview_is_shown_once(self):
        preview = Preview(3, b"\xff\xd8small")
        now = news(RUNNING, 1, preview=preview)

        assert [event.name for event in events_between(news(RUNNING, 1), now)] == ["preview"]
        assert list(events_between(now, news(RUNNING, 1, preview=Preview(3, b"\xff\xd8small")))) == []
