"""The contract of ``/api/generate`` and ``/api/jobs``."""

import json
import math
from uuid import uuid4

import pytest
from rest_framework.test import APIClient

from albums.models import Image
from albums.tests.factories import AlbumFactory, ImageFactory
from generation.models import GenerationJob
from generation.tests.factories import GenerationJobFactory, ReadyAdapterFactory, starter_model
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.tests.canaries import CANARY
from training.models import Adapter

pytestmark = pytest.mark.django_db

PROMPT = {"prompt": f"a red heart on a white background, {CANARY}"}


@pytest.fixture(autouse=True)
def _starter():
    starter_model()


def post(client: APIClient, body: object, **headers: str):
    """Send a body as it stands: NaN and other things a strict encoder would refuse included."""
    text = body if isinstance(body, str) else json.dumps(body)
    return client.post("/api/generate", text, content_type="application/json", headers=headers)


class TestGenerate:
    def test_answers_201_with_the_job_and_where_it_is(self, staff):
        response = post(staff, PROMPT | {"seed": 5, "n": 2})

        job = response.json()
        assert response.status_code == 201
        assert response["Location"] == f"/api/jobs/{job['id']}"
        assert staff.get(response["Location"]).json() == job
        assert (job["kind"], job["status"], job["queue_position"], job["n"]) == ("generation", "queued", 1, 2)
        assert (job["width"], job["height"], job["steps"], job["base_model"]) == (64, 64, 25, "starter")
        assert (job["progress"], job["images"], job["error"]) == (0, [], None)

    def test_draws_a_seed_and_stores_it(self, staff):
        seeds = {post(staff, PROMPT).json()["seed"] for _ in range(5)}

        assert len(seeds) > 1
        assert set(GenerationJob.objects.values_list("seed", flat=True)) == seeds

    @pytest.mark.parametrize(
        ("field", "good"),
        [
            ("prompt", ["x", "y" * 2000]),
            ("negative_prompt", ["", "z" * 2000]),
            ("seed", [0, 2147483647]),
            ("steps", [1, 150]),
            ("width", [64, 72, 2048]),
            ("height", [64, 2048]),
            ("guidance_scale", [0, 7.5, 30]),
            ("n", [1, 8]),
            ("scheduler", ["ddim", "euler", None]),
            ("visibility", ["public", "private"]),
        ],
    )
    def test_accepts_everything_within_its_limits(self, staff, field, good):
        for value in good:
            response = post(staff, PROMPT | {field: value})
            assert response.status_code == 201, response.content
            assert response.json()[field] == value

    @pytest.mark.parametrize(
        ("field", "bad"),
        [
            ("prompt", ["", "   ", "x" * 2001, 5, True, None, ["a"], {"a": 1}, "a\u0000b", "\ud800"]),
            ("negative_prompt", ["x" * 2001, 5, ["a"], None]),
            ("seed", [-1, 2147483648, 1.5, "1", True, None, [1], math.nan, 10**30]),
            ("steps", [0, 151, -5, "25", True, 2.5, math.inf, [25]]),
            ("width", [63, 65, 2056, 0, -64, "64", True, 64.5, math.nan]),
            ("height", [63, 100, 4096, None]),
            ("guidance_scale", [-0.1, 30.1, math.nan, math.inf, -math.inf, "7", True, [7], 10**400]),
            ("n", [0, 9, "2", True, 1.5]),
            ("scheduler", ["nothing", 5, ["ddim"], True]),
            ("base_model", ["nothing", "a\u0000", 5, ["starter"], {"name": "starter"}, True]),
            ("album", ["no-uuid", 5, [1], str(uuid4())]),
            ("visibility", ["secret", True, 1]),
            ("output", ["/etc/passwd"]),
            ("lora_paths", [["/etc/passwd"]]),
        ],
    )
    def test_refuses_everything_else_and_names_the_field(self, staff, field, bad):
        for value in bad:
            response = post(staff, PROMPT | {field: value})

            assert response.status_code == 400, (value, response.content)
            assert response["Content-Type"] == "application/problem+json"
            problem = response.json()
            assert [error["pointer"] for error in problem["errors"]] == [f"/{field}"], (value, problem)
            assert problem["request_id"] == response["X-Request-ID"]
        assert not GenerationJob.objects.exists()

    def test_names_every_bad_field_at_once(self, staff):
        problem = post(staff, {"steps": 0, "width": 65, "extra": 1}).json()

        assert {error["pointer"] for error in problem["errors"]} == {"/prompt", "/steps", "/width", "/extra"}

    @pytest.mark.parametrize(
        "body",
        ["", "{", "[]", '"text"', "null", "5", "[" * 100_000, '{"prompt": "a", "prompt": "b"}', "\x00"],
    )
    def test_refuses_a_malformed_body(self, staff, body):
        response = post(staff, body)

        assert response.status_code == 400
        assert response["Content-Type"] == "application/problem+json"

    def test_refuses_another_media_type(self, staff):
        response = staff.post("/api/generate", "prompt=x", content_type="application/x-www-form-urlencoded")

        assert (response.status_code, response.json()["status"]) == (415, 415)

    def test_limits_come_from_the_configuration(self, staff, set_config):
        set_config(
            "generation: {steps: {minimum: 10, maximum: 20}, default_visibility: public}\nstorage: {minimum_free_bytes: 0}"
        )

        assert post(staff, PROMPT | {"steps": 21}).status_code == 400
        assert post(staff, PROMPT | {"steps": 20}).json()["visibility"] == "public"

    def test_a_disabled_model_cannot_be_named(self, staff):
        model = starter_model()
        model.is_enabled = False
        model.save()

        assert post(staff, PROMPT | {"base_model": "starter"}).json()["errors"][0]["pointer"] == "/base_model"
        assert post(staff, PROMPT).json()["errors"][0]["pointer"] == "/base_model"

    def test_the_pictures_may_go_to_an_album(self, staff):
        album = AlbumFactory()

        assert post(staff, PROMPT | {"album": str(album.pk)}).json()["album"] == str(album.pk)

    def test_an_idempotency_key_answers_the_same_job(self, staff):
        first = post(staff, {"prompt": "a", "seed": 1}, **{"Idempotency-Key": "k1"})
        again = post(staff, {"seed": 1, "prompt": "a"}, **{"Idempotency-Key": "k1"})
        other = post(staff, {"prompt": "b"}, **{"Idempotency-Key": "k1"})

        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["id"] == again.json()["id"]
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")

    def test_a_repeated_request_gets_its_job_whatever_has_happened_since(self, staff, set_config):
        adapter = ReadyAdapterFactory()
        body = PROMPT | {"seed": 1, "loras": [{"id": str(adapter.pk)}]}
        first = post(staff, body, **{"Idempotency-Key": "k1"})
        set_config("generation: {max_queued: 1}\nstorage: {minimum_free_bytes: 0}")
        Adapter.objects.all().delete()

        again = post(staff, body, **{"Idempotency-Key": "k1"})
        other = post(staff, body | {"seed": 2}, **{"Idempotency-Key": "k1"})

        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json()["id"] == first.json()["id"]
        assert again["Location"] == first["Location"]
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
        assert post(staff, body).status_code == 400

    def test_a_full_queue_answers_422(self, staff, set_config):
        set_config("generation: {max_queued: 4}\nstorage: {minimum_free_bytes: 0}")
        assert post(staff, PROMPT | {"n": 5}).status_code == 422
        assert post(staff, PROMPT | {"n": 4}).status_code == 201

        response = post(staff, PROMPT)

        assert (response.status_code, response.json()["code"]) == (422, "queue_full")

    def test_is_charged_for_each_picture_and_refused_without_a_trace(self, staff):
        first = post(staff, PROMPT | {"n": 8})
        refused = post(staff, PROMPT | {"n": 3})

        assert (first.status_code, first["RateLimit-Limit"], first["RateLimit-Remaining"]) == (201, "10", "2")
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert (refused.json()["limit"], refused.json()["window_seconds"]) == (10, 60)
        assert GenerationJob.objects.count() == 1
        assert post(staff, PROMPT | {"n": 2}).status_code == 201

    def test_the_same_request_again_is_not_charged(self, staff):
        for _ in range(4):
            response = post(staff, PROMPT | {"n": 8}, **{"Idempotency-Key": "k1"})

        assert response.status_code == 200
        assert post(staff, PROMPT | {"n": 2})["RateLimit-Remaining"] == "0"

    def test_what_is_invalid_or_impossible_is_said_before_the_rate(self, staff, set_config):
        set_config("generation: {max_queued: 8}\nstorage: {minimum_free_bytes: 0}")
        post(staff, PROMPT | {"n": 8})

        assert post(staff, PROMPT | {"n": 8}).json()["code"] == "queue_full"
        assert post(staff, PROMPT | {"n": 9}).status_code == 400


class TestJobs:
    def test_lists_the_newest_first_in_a_fixed_number_of_queries(self, staff, django_assert_max_num_queries):
        jobs = [GenerationJobFactory() for _ in range(3)]
        image = ImageFactory(source_kind=Image.SourceKind.GENERATION, source_id=jobs[0].pk)

        with django_assert_max_num_queries(5):
            body = staff.get("/api/jobs").json()

        assert [job["id"] for job in body["results"]] == [str(job.pk) for job in reversed(jobs)]
        assert body["results"][2]["images"][0]["file_url"] == f"/api/images/{image.pk}/file"

    def test_every_job_comes_once_in_pages_of_one(self, staff):
        made = [post(staff, PROMPT).json()["id"] for _ in range(4)]
        seen, url = [], "/api/jobs?limit=1"
        while url and len(seen) < 10:
            body = staff.get(url).json()
            seen += [job["id"] for job in body["results"]]
            url = body["next"]

        assert seen == made[::-1]

    def test_filters_by_status(self, staff):
        GenerationJobFactory()
        post(staff, PROMPT)

        assert [job["status"] for job in staff.get("/api/jobs?status=queued").json()["results"]] == ["queued"]
        assert staff.get("/api/jobs?status=nothing").json()["errors"][0]["pointer"] == "/status"

    def test_tells_whether_anybody_is_there_to_do_it(self, staff):
        path = post(staff, PROMPT)["Location"]
        assert staff.get(path).json()["possible"] is False
        assert "generation" in staff.get(path).json()["reason"]

        presence.announce(Cluster.GENERATION)

        assert staff.get(path).json()["possible"] is True
        assert staff.get(path).json()["reason"] is None

    def test_cancelling_a_queued_job_ends_it(self, staff):
        path = post(staff, PROMPT)["Location"]

        response = staff.delete(path)

        assert (response.status_code, response.json()["status"]) == (200, "cancelled")
        assert (staff.delete(path).status_code, staff.delete(path).json()["code"]) == (
            409,
            "already_finished",
        )

    def test_cancelling_a_running_job_is_accepted(self, staff):
        path = post(staff, PROMPT)["Location"]
        job = GenerationJob.objects.claim(worker="w")

        responses = [staff.delete(path), staff.delete(path)]

        assert [response.status_code for response in responses] == [202, 202]
        assert responses[0].json()["queue_position"] == 0
        assert GenerationJob.objects.get(pk=job.pk).status == JobStatus.RUNNING

    @pytest.mark.parametrize("pk", ["no-uuid", str(uuid4())])
    def test_an_unknown_job_is_404(self, staff, pk):
        for response in (staff.get(f"/api/jobs/{pk}"), staff.delete(f"/api/jobs/{pk}")):
            assert (response.status_code, response.json()["status"]) == (404, 404)

    def test_staff_see_the_trace_nowhere_in_the_api(self, staff):
        job = GenerationJobFactory()
        GenerationJob.objects.filter(pk=job.pk).update(
            error_code="x", error_detail="y", error_trace="/root/secret"
        )

        assert "secret" not in staff.get(f"/api/jobs/{job.pk}").content.decode()


@pytest.mark.parametrize(
    ("method", "path"),
    [("post", "/api/generate"), ("get", "/api/jobs"), ("get", "/api/jobs/x"), ("delete", "/api/jobs/x")],
)
def test_only_staff_may(method, path):
    client = APIClient()
    anonymous = getattr(client, method)(path)
    client.force_authenticate(UserFactory())
    signed_in = getattr(client, method)(path)

    assert (anonymous.status_code, signed_in.status_code) == (401, 403)
    assert anonymous["WWW-Authenticate"].startswith("Bearer")
    assert anonymous["Content-Type"] == signed_in["Content-Type"] == "application/problem+json"
