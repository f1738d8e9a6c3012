"""Where pictures come from, what has come of them, and taking all of it down."""

import json
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from albums import lineage
from albums.image_lineage import IMAGE
from albums.lineage import Key
from albums.models import Image, ImageLora
from albums.tests.factories import AlbumFactory, ImageFactory
from generation.models import GenerationJob
from generation.tests.factories import GenerationJobFactory, ReadyAdapterFactory
from imagehub.accounts.models import AuditEntry
from imagehub.jobs.models import JobStatus
from training.models import Adapter

pytestmark = pytest.mark.django_db


def job_with(adapter=None, **fields) -> GenerationJob:
    loras = [{"id": str(adapter.pk), "name": adapter.name, "weight": 0.5}] if adapter else []
    return GenerationJobFactory(loras=loras, **fields)


def made_by(job, **fields) -> Image:
    image = ImageFactory(source_kind=Image.SourceKind.GENERATION, source_id=job.pk, **fields)
    for lora in job.loras:
        ImageLora.objects.create(image=image, lora_id=lora["id"])
    return image


def answer(client, image, what="lineage") -> dict:
    response = client.get(f"/api/images/{image.pk}/{what}")
    assert response.status_code == 200, response.content
    return response.json()


def kinds(graph) -> list[str]:
    return sorted(node["kind"] for node in graph["nodes"])


def edges(graph) -> set[tuple[str, str, str]]:
    label = {node["key"]: node["label"] for node in graph["nodes"]}
    return {(label[edge["origin"]], edge["role"], label[edge["result"]]) for edge in graph["edges"]}


class TestLineage:
    def test_goes_from_a_picture_back_to_all_it_was_made_from(self, staff):
        ink, source = ReadyAdapterFactory(name="ink"), ImageFactory(name="sketch")
        first = made_by(job_with(ink, name="first try", init_image=source, strength=0.5), name="draft")
        final = made_by(job_with(name="second try", init_image=first, strength=0.5), name="final")

        graph = answer(staff, final)

        assert graph["root"] == f"image:{final.pk}"
        assert edges(graph) == {
            ("second try", "made", "final"),
            ("starter", "used", "second try"),
            ("draft", "started_from", "second try"),
            ("first try", "made", "draft"),
            ("starter", "used", "first try"),
            ("ink", "used", "first try"),
            ("sketch", "started_from", "first try"),
        }
        assert not graph["truncated"]

    def test_names_the_tries_before(self, staff):
        lost = job_with(name="lost", status=JobStatus.PENDING)
        again = made_by(job_with(name="again", retry_of=lost), name="picture")

        assert ("lost", "tried_again", "again") in edges(answer(staff, again))

    def test_an_adapter_that_has_gone_is_named_as_it_was_called(self, staff):
        ink = ReadyAdapterFactory(name="ink")
        image = made_by(job_with(ink))
        ink.delete()

        [node] = [node for node in answer(staff, image)["nodes"] if node["kind"] == "adapter"]
        assert (node["label"], node["url"], node["details"]) == ("ink", None, {"is_gone": True})

    def test_a_picture_that_was_uploaded_comes_from_nothing(self, staff):
        graph = answer(staff, ImageFactory())

        assert (kinds(graph), graph["edges"]) == (["image"], [])

    def test_staff_are_told_the_parameters_of_jobs_and_nobody_else(self, staff):
        image = made_by(job_with(ReadyAdapterFactory()), public=True)
        [job] = [node for node in answer(staff, image)["nodes"] if node["kind"] == "generation_job"]
        assert (job["details"]["steps"], job["details"]["seed"]) == (2, 1)
        assert "prompt" in job["details"]

        [job] = [node for node in answer(APIClient(), image)["nodes"] if node["kind"] == "generation_job"]

        assert (job["label"], job["url"], job["details"]) == ("generation job", None, {})

    def test_what_one_may_not_see_ends_the_walk(self):
        hidden = made_by(job_with(name="private matter"), name="private sketch")
        off = ReadyAdapterFactory(name="secret adapter", is_enabled=False)
        image = made_by(job_with(off, init_image=hidden, strength=0.5), name="poster", public=True)

        graph = answer(APIClient(), image)

        assert kinds(graph) == ["base_model", "generation_job", "image"]
        assert "private" not in json.dumps(graph)
        assert "secret" not in json.dumps(graph)

    def test_a_private_picture_is_not_found(self):
        image = ImageFactory()

        for what in ("lineage", "used-in"):
            assert APIClient().get(f"/api/images/{image.pk}/{what}").status_code == 404

    def test_costs_the_same_queries_however_much_stands_at_a_step(self, staff):
        def queries(width: int) -> int:
            source = ImageFactory()
            for _ in range(width):
                made_by(job_with(init_image=source, strength=0.5))
            with CaptureQueriesContext(connection) as captured:
                answer(staff, source, "used-in")
            return len(captured)

        assert queries(1) == queries(6)

    def test_ends_after_so_many_things(self, staff, monkeypatch):
        monkeypatch.setattr(lineage, "MOST_NODES", 4)
        source = ImageFactory()
        for _ in range(5):
            job_with(init_image=source, strength=0.5)

        graph = answer(staff, source, "used-in")

        assert (len(graph["nodes"]), graph["truncated"]) == (4, True)

    def test_ends_after_so_many_steps(self, staff, monkeypatch):
        monkeypatch.setattr(lineage, "DEEPEST", 3)
        image = ImageFactory()
        for _ in range(5):
            image = made_by(job_with(init_image=image, strength=0.5))

        assert answer(staff, image)["truncated"]

    def test_other_apps_join(self, staff, monkeypatch):
        monkeypatch.setattr(lineage, "_kinds", dict(lineage._kinds))
        monkeypatch.setattr(lineage, "_origins", lineage.defaultdict(list, lineage._origins))
        image = ImageFactory()
        page = lineage.Node(Key("page", "7"), "a page")
        lineage.register_kind(lineage.Kind("page", lambda ids, user: [page]))
        lineage.register_links(
            IMAGE, origins=lambda ids: [lineage.Edge(page.key, Key(IMAGE, ids[0]), "shown_on")]
        )

        assert edges(answer(staff, image)) == {("a page", "shown_on", image.name)}


class TestUsedIn:
    def test_goes_the_other_way(self, staff):
        source = ImageFactory(name="sketch")
        first = made_by(job_with(name="first", init_image=source, strength=0.5), name="draft")
        made_by(job_with(name="second", init_image=first, strength=0.5), name="final")

        assert edges(answer(staff, source, "used-in")) == {
            ("sketch", "started_from", "first"),
            ("first", "made", "draft"),
            ("draft", "started_from", "second"),
            ("second", "made", "final"),
        }

    def test_the_public_does_not_learn_of_private_uses(self):
        source = ImageFactory(public=True)
        made_by(job_with(init_image=source, strength=0.5))
        job_with(init_image=source, strength=0.5)

        assert kinds(answer(APIClient(), source, "used-in")) == ["image"]


class TestTakedown:
    def run(self, *args) -> str:
        output = StringIO()
        call_command("takedown", *args, stdout=output)
        return output.getvalue()

    def tree(self):
        source = ImageFactory(public=True, name="source")
        child = made_by(job_with(init_image=source, strength=0.5), public=True)
        grandchild = made_by(job_with(init_image=child, strength=0.5), public=True)
        other = ImageFactory(public=True)
        return source, child, grandchild, other

    def state(self, image):
        image.refresh_from_db()
        return image.visibility, image.deleted_at is not None

    def test_lists_and_changes_nothing_unless_told_to(self):
        source, child, grandchild, other = self.tree()

        for args in ((), ("--dry-run",)):
            listed = self.run("--image", str(source.pk), *args)

            assert all(str(image.pk) in listed for image in (source, child, grandchild))
            assert str(other.pk) not in listed
            assert "Found 3 image, 2 generation_job." in listed
        assert self.state(source) == ("public", False)

    def test_quarantines_everything_that_descends_and_nothing_else(self):
        source, child, grandchild, other = self.tree()
        album = AlbumFactory(images=[child, other])
        waiting = job_with(init_image=child, strength=0.5)
        GenerationJob.objects.filter(pk=waiting.pk).enqueue()

        self.run("--image", str(source.pk), "--yes", "--reason", "asked by the artist")

        assert [self.state(image) for image in (source, child, grandchild)] == [("private", True)] * 3
        assert self.state(other) == ("public", False)
        waiting.refresh_from_db()
        assert waiting.status == JobStatus.CANCELLED
        album.refresh_from_db()
        assert album.total_images == 1
        entry = AuditEntry.objects.get(action="image.quarantine", target_id=str(child.pk))
        assert (entry.via, entry.after["reason"]) == ("command", "asked by the artist")
        assert entry.before["visibility"] == "public"

    def test_again_finds_what_came_since_and_repeats_nothing(self):
        source, child, *_ = self.tree()
        self.run("--image", str(source.pk), "--yes")
        late = made_by(GenerationJob.objects.get(pk=child.source_id), source_index=1)

        output = self.run("--image", str(source.pk), "--yes")

        assert "Quarantined 1 image." in output
        assert self.state(late) == ("private", True)
        assert "nothing more" in self.run("--image", str(source.pk), "--yes")

    def test_goes_through_adapters_that_were_trained_on_it(self, monkeypatch):
        monkeypatch.setattr(
            lineage, "_results", lineage.defaultdict(list, {k: list(v) for k, v in lineage._results.items()})
        )
        source, adapter = ImageFactory(public=True), ReadyAdapterFactory()
        made = made_by(job_with(adapter), public=True)
        lineage.register_links(
            IMAGE,
            results=lambda ids: (
                [lineage.Edge(Key(IMAGE, str(source.pk)), Key("adapter", str(adapter.pk)), "trained_on")]
                if str(source.pk) in ids
                else []
            ),
        )

        self.run("--image", str(source.pk), "--yes")

        assert not Adapter.objects.get(pk=adapter.pk).is_enabled
        assert self.state(made) == ("private", True)

    def test_by_the_host_that_things_were_fetched_from(self, monkeypatch):
        monkeypatch.setattr(lineage, "_sources", [])
        with pytest.raises(CommandError, match="Nothing here records"):
            self.run("--source-domain", "example.com")
        image = ImageFactory(public=True)
        asked = []
        lineage.register_sources(lambda host: asked.append(host) or [Key(IMAGE, str(image.pk))])

        self.run("--source-domain", "Example.COM.", "--yes")

        assert (asked, self.state(image)) == (["example.com"], ("private", True))

    def test_prints_one_json_object(self):
        source, *_ = self.tree()

        report = json.loads(self.run("--image", str(source.pk), "--json"))

        assert (report["dry_run"], report["counts"]) == (True, {"image": 3, "generation_job": 2})
        assert report["found"][0] == {"kind": "image", "id": str(source.pk)}
        assert len(report["found"]) == 5

    def test_knows_no_such_image(self):
        with pytest.raises(CommandError, match="no such image"):
            self.run("--image", str(uuid4()))
        with pytest.raises(CommandError):
            self.run()

    def test_what_is_put_off_is_not_lost(self, monkeypatch):
        """Things of another kind are met later, also where they were the last ones that had been noted."""
        monkeypatch.setattr(lineage, "_results", lineage.defaultdict(list))
        first, image, job, end = (
            Key(kind, name) for kind, name in zip((IMAGE, IMAGE, "job", IMAGE), "abcd", strict=True)
        )
        follows = {first: [image, job], job: [end]}
        for kind in (IMAGE, "job"):
            lineage.register_links(
                kind,
                results=lambda ids, kind=kind: [
                    lineage.Edge(Key(kind, pk), result, "x")
                    for pk in ids
                    for result in follows.get(Key(kind, pk), [])
                ],
            )

        met = [key for keys in lineage.walk_results([first]) for key in keys]

        assert sorted(met) == sorted([first, image, job, end])

    def test_meets_each_thing_once_in_a_circle(self, monkeypatch):
        first, second = ImageFactory(), ImageFactory()
        monkeypatch.setattr(lineage, "_results", lineage.defaultdict(list))
        pair = {str(first.pk): second, str(second.pk): first}
        lineage.register_links(
            IMAGE,
            results=lambda ids: [
                lineage.Edge(Key(IMAGE, pk), Key(IMAGE, str(pair[pk].pk)), "x") for pk in ids
            ],
        )

        met = [key for keys in lineage.walk_results([Key(IMAGE, str(first.pk))]) for key in keys]

        assert met == [Key(IMAGE, str(first.pk)), Key(IMAGE, str(second.pk))]
