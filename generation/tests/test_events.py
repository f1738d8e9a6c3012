"""``/api/jobs/{id}/events`` as a client sees it, under the server that ships."""

import asyncio
import base64
import http.client
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.test import Client, RequestFactory
from django.utils import timezone
from PIL import Image
from rest_framework.request import Request

from generation.api.views import GenerationEventsView
from generation.models import GenerationJob
from generation.tests.factories import GenerationJobFactory, starter_model
from imagehub.accounts.services import revoke_token
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory
from imagehub.api.event_streams import Ids, _asks_again
from imagehub.asgi import THREADS
from imagehub.jobs import listening, live
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.lease import Lease
from imagehub.jobs.listening import Stage
from imagehub.jobs.models import Audience, JobStatus
from imagehub.jobs.registry import get_kind
from imagehub.jobs.runner import work_off

SECRET = "ih_events"
JPEG = b"\xff\xd8" + bytes(2000)


@dataclass
class Told:
    id: int
    name: str
    data: dict


class Stream:
    """An open stream of events."""

    def __init__(self, base: str, job: GenerationJob, *, secret: str = SECRET, last: int | str = "") -> None:
        self._connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=20)
        headers = {"Authorization": f"Bearer {secret}", "Accept": "text/event-stream"}
        if last:
            headers["Last-Event-ID"] = str(last)
        self._connection.request("GET", f"/api/jobs/{job.pk}/events", headers=headers)
        self.response = self._connection.getresponse()
        self.status = self.response.status

    def __iter__(self) -> Iterator[Told]:
        fields: dict[str, str] = {}
        for raw in self.response:
            line = raw.decode().rstrip("\n")
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "event" in fields:
                yield Told(int(fields["id"]), fields["event"], json.loads(fields["data"]))
                fields = {}

    def until(self, name: str, **data) -> list[Told]:
        """Read until an event says this."""
        told = []
        for event in self:
            told.append(event)
            if event.name == name and data.items() <= event.data.items():
                return told
        raise AssertionError(f"The stream ended before {name} {data}: {told}")

    def close(self) -> None:
        self.response.close()
        self._connection.close()


@pytest.fixture
def staff(transactional_db):
    starter_model()
    user = UserFactory(staff=True)
    ApiTokenFactory(user=user, scopes=["read"], secret=SECRET)
    return user


@pytest.fixture
def job(staff):
    return GenerationJobFactory(status=JobStatus.QUEUED, queued_at=timezone.now(), owner=staff)


def states(events: list[Told]) -> list[tuple[str, int]]:
    return [(event.data["status"], event.data["attempt"]) for event in events if event.name == "state"]


@pytest.mark.django_db(transaction=True)
class TestStream:
    def test_tells_a_whole_life_and_ends_with_it(self, server, job):
        stream = Stream(server[0], job)
        assert stream.status == 200
        assert stream.response.headers["Content-Type"] == "text/event-stream"
        assert stream.response.headers["X-Accel-Buffering"] == "no"
        events = stream.until("state", status="queued")
        assert events[0].data["possible"] is False  # there is no worker

        lease = Lease(GenerationJob.objects.claim(worker="w"))
        events += stream.until("state", status="running")
        lease.report(step=1, total_steps=2, message="Denoising")
        lease.renew()
        events += stream.until("progress", step=1)
        lease.complete()
        events += list(stream)

        assert states(events) == [("queued", 0), ("running", 1), ("completed", 1)]
        assert [event.id for event in events] == sorted({event.id for event in events})
        assert events[-1].data["progress"] == 100

    def test_whoever_comes_back_has_missed_no_transition(self, server, job):
        stream = Stream(server[0], job)
        [first] = stream.until("state", status="queued")
        stream.close()
        Lease(GenerationJob.objects.claim(worker="w")).retry()
        Lease(GenerationJob.objects.claim(worker="w")).complete()

        again = list(Stream(server[0], job, last=first.id))

        assert states(again) == [("running", 1), ("queued", 1), ("running", 2), ("completed", 2)]
        assert min(event.id for event in again) > first.id
        assert Stream(server[0], job, last=again[-1].id).status == 204

    def test_previews_are_made_only_while_somebody_listens(self, server, job):
        claimed = GenerationJob.objects.claim(worker="w")
        lease = Lease(claimed)
        event = {"step": 3, "data": base64.b64encode(JPEG).decode()}
        assert live.publish(claimed, event) is False
        assert not Audience.objects.exists()

        stream = Stream(server[0], job)
        stream.until("state", status="running")
        for _ in range(50):
            time.sleep(0.1)
            if live.is_watched(job.pk):
                break
        assert live.publish(claimed, event) is True
        [*_, told] = stream.until("preview")

        assert told.data["step"] == 3
        assert base64.b64decode(told.data["image"].removeprefix("data:image/jpeg;base64,")) == JPEG
        lease.complete()
        assert [event.name for event in stream][-1] == "state"

    def test_shows_a_real_picture_in_the_making(self, server, staff):
        job = GenerationJobFactory(
            status=JobStatus.QUEUED,
            queued_at=timezone.now(),
            owner=staff,
            steps=60,
            base_model=starter_model(),
        )
        stream = Stream(server[0], job)
        stream.until("state", status="queued")

        work_off(Cluster.GENERATION)

        events = list(stream)
        assert states(events) == [("running", 1), ("completed", 1)]
        names = [event.name for event in events]
        assert {"progress", "preview"} <= set(names)
        shown = next(event.data["image"] for event in events if event.name == "preview")
        with Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2]))) as preview:
            assert preview.format == "JPEG"
        assert max(event.data.get("progress", 0) for event in events[:-1]) > 0

    def test_a_job_that_has_gone_ends_the_stream(self, server, job):
        stream = Stream(server[0], job)
        stream.until("state", status="queued")

        GenerationJob.objects.filter(pk=job.pk).delete()

        assert list(stream) == []

    def test_two_hundred_listeners_hold_no_thread(self, server, job):
        base, process = server
        Stream(base, job).until("state")
        before = threads(process.pid)

        streams = [Stream(base, job) for _ in range(200)]
        for stream in streams:
            stream.until("state", status="queued")

        assert (
            threads(process.pid) <= before + THREADS
        )  # those of the pool that answers requests are made when needed
        GenerationJob.objects.filter(pk=job.pk).request_cancel()
        for stream in streams:
            assert states(list(stream)) == [("cancelled", 0)]

    def test_a_user_has_a_limited_number_of_streams(self, server, job, set_config):
        set_config("events: {streams_per_user: 2}\nstorage: {minimum_free_bytes: 0}")
        streams = [Stream(server[0], job) for _ in range(2)]

        refused = Stream(server[0], job)
        problem = json.loads(refused.response.read())
        assert (refused.status, problem["code"], problem["limit"]) == (429, "concurrency_limit", 2)

        streams[0].close()
        for _ in range(50):
            time.sleep(0.1)
            if (again := Stream(server[0], job)).status == 200:
                break
        assert again.status == 200

    def test_nobody_else_may_listen(self, server, job):
        ApiTokenFactory(user=UserFactory(), scopes=["admin"], secret="ih_visitor")

        assert Stream(server[0], job, secret="ih_unknown").status == 401
        assert Stream(server[0], job, secret="ih_visitor").status == 403
        job.pk = "nothing"
        assert Stream(server[0], job).status == 404


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.mark.django_db
class TestWithoutAnEventLoop:
    """Where the server cannot go on by itself, the answer ends, and the client asks again."""

    @pytest.fixture
    def client(self, db):
        client = Client()
        client.force_login(UserFactory(staff=True))
        return client

    def listen(self, client, job, **headers):
        return client.get(f"/api/jobs/{job.pk}/events", headers={"Accept": "text/event-stream"} | headers)

    def test_tells_how_it_stands(self, client):
        job = GenerationJobFactory(status=JobStatus.QUEUED, queued_at=timezone.now())

        response = self.listen(client, job)

        lines = response.content.decode().splitlines()
        assert lines[0] == "retry: 2000"
        data = json.loads(next(line for line in lines if line.startswith("data: "))[6:])
        poll = client.get(f"/api/jobs/{job.pk}").json()
        assert data == {name: poll[name] for name in data}
        assert data["queue_position"] == 1

    def test_costs_as_many_queries_however_long_the_queue(self, client, django_assert_max_num_queries):
        jobs = [GenerationJobFactory(status=JobStatus.QUEUED, queued_at=timezone.now()) for _ in range(10)]

        with django_assert_max_num_queries(12):
            self.listen(client, jobs[-1])

    def test_refuses_an_id_that_is_none_of_ours(self, client):
        response = self.listen(client, GenerationJobFactory(), **{"Last-Event-ID": "'; drop table"})

        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, "/Last-Event-ID")


@pytest.mark.django_db
class TestTheRightToListen:
    """It is asked for again and again, with what the caller sent at first."""

    def asks_again(self, **meta):
        request = RequestFactory().get("/", **meta)
        request.COOKIES = {settings.SESSION_COOKIE_NAME: meta.get("session", "")}
        return _asks_again(Request(request), GenerationEventsView())

    def test_a_token_that_is_revoked_ends_it(self):
        user = UserFactory(staff=True)
        token = ApiTokenFactory(user=user, secret=SECRET)
        may_listen = self.asks_again(HTTP_AUTHORIZATION=f"Bearer {SECRET}")
        assert may_listen()

        revoke_token(token)

        assert not may_listen()

    def test_whoever_is_no_longer_staff_may_not(self):
        user = UserFactory(staff=True)
        client = Client()
        client.force_login(user)
        may_listen = self.asks_again(session=client.session.session_key)
        assert may_listen()

        user.is_staff = False
        user.save()

        assert not may_listen()

    def test_whoever_has_signed_out_may_not(self):
        client = Client()
        client.force_login(UserFactory(staff=True))
        may_listen = self.asks_again(session=client.session.session_key)
        assert may_listen()

        client.logout()

        assert not may_listen()


@pytest.mark.django_db(transaction=True)
def test_a_stream_ends_when_its_listener_may_not_listen_any_more(job, monkeypatch):
    monkeypatch.setattr(listening, "AGAIN_SECONDS", 0.0)
    kind = get_kind("generation")
    told = listening.look(kind, [job.pk])[job.pk]
    answers = iter([True, False])

    async def listen():
        events = listening.hub().listen(kind, job.pk, told, may_listen=lambda: next(answers))
        monkeypatch.setattr(listening, "QUIET_SECONDS", 0.05)
        return [event async for event in events]

    assert asyncio.run(asyncio.wait_for(listen(), 10)) == [None, None]


def test_ids_grow_and_remember_the_stage():
    ids = Ids(Ids().next(Stage("queued", 0)) + 10_000_000)
    stages = [Stage(status, attempt) for attempt in (0, 1, 3) for status in JobStatus.values]

    numbers = [ids.next(stage) for stage in stages]

    assert numbers == sorted(set(numbers))
    assert [Ids.stage_of(number) for number in numbers] == stages
    assert max(numbers) < 2**53
