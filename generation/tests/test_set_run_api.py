"""The contract of ``/api/albums/{id}/generate``, ``/api/set-runs`` and ``/api/themes/random``."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from albums.models import Album, Image
from albums.services import trash_images
from albums.tests.factories import AlbumFactory, ImageFactory
from generation.models import GenerationJob, SetRun
from generation.tests.decks import THEME, make_deck, many_rows
from generation.tests.factories import ReadyAdapterFactory, starter_model
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _starter():
    starter_model()


@pytest.fixture
def deck():
    return make_deck()


def generate(client, deck, body=None, **headers):
    body = {"theme": THEME} | (body or {})
    return client.post(f"/api/albums/{deck.pk}/generate", body, format="json", headers=headers)


def complete(job: GenerationJob) -> Image:
    image = ImageFactory(source_kind=Image.SourceKind.GENERATION, source_id=job.pk, name=job.name)
    GenerationJob.objects.claim(worker="test")
    GenerationJob.objects.filter(pk=job.pk).move(JobStatus.RUNNING, JobStatus.COMPLETED, progress=100)
    return image


class TestGenerate:
    def test_answers_201_with_the_run_and_where_it_is(self, staff, deck):
        response = generate(staff, deck)

        run = response.json()
        assert response.status_code == 201, run
        assert response["Location"] == f"/api/set-runs/{run['id']}"
        assert staff.get(response["Location"]).json() == run
        assert (run["status"], run["theme"], run["total"], run["progress"]) == ("queued", THEME, 3, 0)
        assert (run["completed"], run["failed"], run["cancelled"]) == (0, 0, 0)
        assert [item["name"] for item in run["items"]] == ["Ace", "Two", "Three"]
        assert {(item["status"], item["image"]) for item in run["items"]} == {("queued", None)}
        assert run["template"] == str(deck.pk)
        job = staff.get(f"/api/jobs/{run['items'][1]['job']}").json()
        assert (job["set_run"], job["set_index"], job["name"], job["album"]) == (
            run["id"],
            1,
            "Two",
            run["album"],
        )

    def test_what_is_left_out_is_the_sets_and_then_the_base_models(self, staff):
        deck = make_deck(
            width=128, height=None, loras=[{"id": str(ReadyAdapterFactory(name="ink").pk), "weight": 0.5}]
        )

        generate(staff, deck, {"seed": 7})

        job = GenerationJob.objects.order_by("set_index").first()
        assert (job.width, job.height, job.steps, job.seed) == (128, 64, 25, 7)
        assert job.negative_prompt == deck.negative_prompt
        assert [(lora["name"], lora["weight"]) for lora in job.loras] == [("ink", 0.5)]

    def test_what_is_said_goes_before_what_the_set_says(self, staff):
        deck = make_deck(loras=[{"id": str(ReadyAdapterFactory(name="ink").pk), "weight": 0.5}])
        said = {"steps": 4, "guidance_scale": 2.5, "width": 72, "height": 80, "seed": 3, "seed_mode": "fixed",
                "scheduler": "euler", "negative_prompt": "", "visibility": "public", "loras": []}  # fmt: skip

        assert generate(staff, deck, said).status_code == 201

        for job in GenerationJob.objects.all():
            assert {name: getattr(job, name) for name in said} == said

    def test_into_an_album_that_is_there(self, staff, deck):
        album = AlbumFactory()

        assert generate(staff, deck, {"album": str(album.pk)}).json()["album"] == str(album.pk)

    def test_into_a_new_album_with_a_name(self, staff, deck):
        run = generate(staff, deck, {"album_name": "for aunt May", "visibility": "public"}).json()

        album = Album.objects.get(pk=run["album"])
        assert (album.name, album.visibility, album.kind) == ("for aunt May", "public", "set")

    def test_only_some_rows(self, staff, deck):
        run = generate(staff, deck, {"rows": [2]}).json()

        assert [(item["index"], item["name"]) for item in run["items"]] == [(2, "Three")]

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"theme": ""}, "/theme"),
            ({"theme": "x" * 501}, "/theme"),
            ({"theme": None}, "/theme"),
            ({"theme": 5}, "/theme"),
            ({"rows": [3]}, "/rows/0"),
            ({"rows": [-1]}, "/rows/0"),
            ({"rows": []}, "/rows"),
            ({"rows": "0"}, "/rows"),
            ({"rows": [1, 1]}, "/rows/1"),
            ({"steps": 0}, "/steps"),
            ({"width": 65}, "/width"),
            ({"album": "nothing"}, "/album"),
            ({"album_name": ""}, "/album_name"),
            ({"prompt": "no"}, "/prompt"),
            ({"n": 2}, "/n"),
            ({"scheduler": "pndm", "steps": 3}, "/steps"),
            ({"loras": [{"id": "01a212ab-e42f-7749-9fe9-e2062007175c"}]}, "/loras/0/id"),
        ],
    )
    def test_names_the_field_that_is_wrong(self, staff, deck, body, pointer):
        response = generate(staff, deck, body)

        assert response.status_code == 400
        assert response.json()["errors"][0]["pointer"] == pointer
        assert not SetRun.objects.exists()

    def test_an_album_and_a_name_for_a_new_one_are_too_much(self, staff, deck):
        response = generate(staff, deck, {"album": str(AlbumFactory().pk), "album_name": "other"})

        assert response.json()["errors"][0]["pointer"] == "/album_name"

    def test_a_theme_is_required(self, staff, deck):
        response = staff.post(f"/api/albums/{deck.pk}/generate", {}, format="json")

        assert response.json()["errors"] == [
            {"pointer": "/theme", "code": "required", "detail": "This field is required."}
        ]

    def test_an_album_that_is_no_set_is_a_conflict(self, staff):
        assert generate(staff, AlbumFactory()).json()["code"] == "not_a_set"

    def test_a_set_whose_adapter_has_gone_is_not_ready(self, staff):
        deck = make_deck(loras=[{"id": "01a212ab-e42f-7749-9fe9-e2062007175c", "weight": 1}])

        response = generate(staff, deck)

        assert (response.status_code, response.json()["code"]) == (422, "adapter_missing")

    def test_costs_one_of_the_rate_limit_however_many_there_are(self, staff):
        deck = make_deck(many_rows(40))

        response = generate(staff, deck)

        assert (response.status_code, response["RateLimit-Remaining"]) == (201, "9")

    def test_a_run_that_is_refused_for_its_rate_was_never_there(self, staff, deck, set_config):
        set_config(
            "rate_limits: {generate: {limit: 8, window_seconds: 60}}\nstorage: {minimum_free_bytes: 0}"
        )
        answers = [generate(staff, deck).status_code for _ in range(9)]

        assert answers == [201] * 8 + [429]
        assert (SetRun.objects.count(), Album.objects.count()) == (8, 9)

    def test_the_same_key_answers_the_same_run(self, staff, deck):
        first = generate(staff, deck, **{"Idempotency-Key": "k"})
        again = generate(staff, deck, **{"Idempotency-Key": "k"})

        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["id"] == again.json()["id"]
        other = generate(staff, make_deck(), **{"Idempotency-Key": "k"})
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")

    def test_prompts_are_shown_only_if_the_adapters_of_the_set_can_be_had(self, staff):
        there, off = ReadyAdapterFactory(name="there"), ReadyAdapterFactory(name="off", is_enabled=False)
        deck = make_deck(loras=[{"id": str(there.pk), "weight": 1.0}])
        broken = make_deck(loras=[{"id": str(lora.pk), "weight": 1.0} for lora in (there, off)])

        shown, refused = (staff.get(f"/api/albums/{album.pk}/render") for album in (deck, broken))

        assert (shown.status_code, len(shown.json()["results"])) == (200, 3)
        assert (refused.status_code, refused.json()["code"]) == (422, "adapter_missing")
        assert str(off.pk) in refused.json()["detail"]

    def test_a_repeated_request_gets_its_run_though_the_set_has_gone(self, staff, deck):
        first = generate(staff, deck, **{"Idempotency-Key": "k"})
        pk = deck.pk
        deck.delete()
        deck.pk = pk

        again = generate(staff, deck, **{"Idempotency-Key": "k"})

        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
        assert generate(staff, deck).status_code == 404

    def test_is_recorded_once_and_without_the_theme(self, staff, deck):
        generate(staff, deck)

        [entry] = AuditEntry.objects.filter(target_type="generation.setrun")
        assert entry.action == "setrun.create"
        assert THEME not in str(entry.after)
        assert not AuditEntry.objects.filter(target_type="generation.generationjob").exists()


class TestFollow:
    def test_lists_the_newest_first_by_a_constant_number_of_queries(self, staff, deck):
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                assert staff.get("/api/set-runs").status_code == 200
            return len(captured)

        first = generate(staff, deck).json()["id"]
        before = queries()
        rest = [generate(staff, deck).json()["id"] for _ in range(4)]

        assert queries() == before
        results = staff.get("/api/set-runs").json()["results"]
        assert [run["id"] for run in results] == [*reversed(rest), first]
        assert "items" not in results[0]

    def test_shows_pictures_as_they_come_and_not_those_in_the_trash(self, staff, deck):
        run = generate(staff, deck).json()
        jobs = list(GenerationJob.objects.order_by("set_index"))
        image = complete(jobs[0])
        binned = complete(jobs[1])
        trash_images([binned.pk])

        run = staff.get(f"/api/set-runs/{run['id']}").json()

        assert (run["status"], run["completed"], run["progress"]) == ("running", 2, 66)
        assert [item["image"] and item["image"]["id"] for item in run["items"]] == [str(image.pk), None, None]

    def test_pages_items_and_filters_them(self, staff):
        run = generate(staff, make_deck(many_rows(5))).json()
        complete(GenerationJob.objects.get(set_index=0))

        page = staff.get(f"{run['items_url']}?limit=2").json()
        rest = staff.get(page["next"]).json()

        assert [item["index"] for item in page["results"] + rest["results"]] == [0, 1, 2, 3]
        done = staff.get(f"{run['items_url']}?status=completed").json()["results"]
        assert [item["index"] for item in done] == [0]

    def test_cancels_the_rest(self, staff, deck):
        run = generate(staff, deck).json()

        response = staff.delete(f"/api/set-runs/{run['id']}")

        assert (response.status_code, response.json()["status"]) == (200, "cancelled")
        assert staff.delete(f"/api/set-runs/{run['id']}").status_code == 409
        assert AuditEntry.objects.filter(action="setrun.cancel").count() == 1

    def test_a_picture_that_is_being_made_is_stopping(self, staff, deck):
        run = generate(staff, deck).json()
        GenerationJob.objects.claim(worker="test")

        assert staff.delete(f"/api/set-runs/{run['id']}").status_code == 202

    def test_retries_what_was_cancelled(self, staff, deck):
        run = generate(staff, deck).json()
        staff.delete(f"/api/set-runs/{run['id']}")

        response = staff.post(f"/api/set-runs/{run['id']}/retry")

        again = response.json()
        assert (response.status_code, again["status"], again["queued"], again["cancelled"]) == (
            200,
            "queued",
            3,
            0,
        )
        assert {item["job"] for item in again["items"]}.isdisjoint(item["job"] for item in run["items"])
        job = staff.get(f"/api/jobs/{again['items'][0]['job']}").json()
        assert job["retry_of"] == run["items"][0]["job"]
        assert staff.post(f"/api/set-runs/{run['id']}/retry").json()["code"] == "nothing_to_retry"
        assert AuditEntry.objects.filter(action="setrun.retry").count() == 1

    def test_only_staff_may_look(self, deck, staff):
        run = generate(staff, deck).json()
        visitor = APIClient()
        visitor.force_authenticate(UserFactory())

        for path in (
            "/api/set-runs",
            f"/api/set-runs/{run['id']}",
            run["items_url"],
            run["contact_sheet_url"],
        ):
            assert APIClient().get(path).status_code == 401
            assert visitor.get(path).status_code == 403


class TestRandomTheme:
    def test_everybody_gets_a_theme_that_can_be_used(self, deck, staff):
        themes = {APIClient().get("/api/themes/random").json()["theme"] for _ in range(20)}

        assert len(themes) > 10
        assert all(1 <= len(theme) <= 500 for theme in themes)
        assert generate(staff, deck, {"theme": themes.pop()}).status_code == 201


class TestAdaptersOfAJob:
    def post(self, client, **body):
        return client.post("/api/generate", {"prompt": "x"} | body, format="json")

    def test_are_named_by_id_and_kept_with_name_and_weight(self, staff):
        ink, oil = ReadyAdapterFactory(name="ink", default_weight=0.7), ReadyAdapterFactory(name="oil")

        job = self.post(staff, loras=[{"id": str(oil.pk), "weight": -0.5}, {"id": str(ink.pk)}]).json()

        assert job["loras"] == [
            {"id": str(oil.pk), "name": "oil", "weight": -0.5},
            {"id": str(ink.pk), "name": "ink", "weight": 0.7},
        ]

    @pytest.mark.parametrize(
        ("loras", "pointer"),
        [
            ([{"id": "ink"}], "/loras/0/id"),
            ([{"id": 5}], "/loras/0/id"),
            ([{"weight": 1}], "/loras/0/id"),
            (["ink"], "/loras/0"),
            ([{"id": "OFF"}], "/loras/0/id"),
            ([{"id": "INK"}, {"id": "INK"}], "/loras/1/id"),
            ([{"id": "INK", "weight": 2.5}], "/loras/0/weight"),
            ([{"id": "INK", "weight": True}], "/loras/0/weight"),
            ([{"id": "INK", "path": "/etc/passwd"}], "/loras/0/path"),
            ("ink", "/loras"),
            ([{"id": "INK"}] * 9, "/loras"),
        ],
    )
    def test_that_are_no_good_are_named(self, staff, loras, pointer):
        ids = {
            "INK": str(ReadyAdapterFactory(name="ink").pk),
            "OFF": str(ReadyAdapterFactory(is_enabled=False).pk),
        }
        if isinstance(loras, list):
            loras = [
                lora | {"id": ids.get(lora["id"], lora["id"])}
                if isinstance(lora, dict) and "id" in lora
                else lora
                for lora in loras
            ]

        response = self.post(staff, loras=loras)

        assert response.status_code == 400, response.json()
        assert response.json()["errors"][0]["pointer"] == pointer

    def test_that_do_not_fit_are_refused_before_there_is_a_job(self, staff):
        model = starter_model()
        model.architecture = "sd1"
        model.save()

        response = self.post(staff, loras=[{"id": str(ReadyAdapterFactory(architecture="sdxl").pk)}])

        assert (response.status_code, response.json()["code"]) == (422, "adapter_incompatible")
        assert not GenerationJob.objects.exists()


class TestImageToImage:
    def post(self, client, **body):
        return client.post("/api/generate", {"prompt": "x"} | body, format="json")

    def test_starts_from_an_image(self, staff):
        image = ImageFactory()

        job = self.post(staff, init_image=str(image.pk), name="again").json()

        assert (job["init_image"], job["strength"], job["name"]) == (str(image.pk), 0.75, "again")

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"strength": 0.5}, "/strength"),
            ({"init_image": "nothing"}, "/init_image"),
            ({"init_image": "01a212ab-e42f-7749-9fe9-e2062007175c"}, "/init_image"),
            ({"init_image": "TRASH"}, "/init_image"),
            ({"init_image": "IMAGE", "strength": 1.5}, "/strength"),
            ({"init_image": "IMAGE", "strength": 0.01}, "/strength"),
            ({"init_image": "IMAGE", "strength": "1"}, "/strength"),
            ({"seed_mode": "sideways"}, "/seed_mode"),
            ({"name": ""}, "/name"),
        ],
    )
    def test_names_what_is_wrong(self, staff, body, pointer):
        trashed = ImageFactory()
        trash_images([trashed.pk])
        ids = {"IMAGE": str(ImageFactory().pk), "TRASH": str(trashed.pk)}

        response = self.post(staff, **{name: ids.get(value, value) for name, value in body.items()})

        assert response.status_code == 400, response.json()
        assert response.json()["errors"][0]["pointer"] == pointer
