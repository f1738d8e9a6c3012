"""Where pictures of the web come from, for whoever asks; and which crawl they came by."""

import json
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.test.utils import CaptureQueriesContext

from albums import lineage
from albums.image_lineage import IMAGE
from albums.lineage import Edge, Key
from albums.models import Image
from albums.services import purge_images, trash_images
from albums.tests.clients import client_of
from albums.tests.factories import ImageFactory
from imagehub.accounts.tests.factories import UserFactory
from scraping.models import ScrapeJob
from scraping.tests.factories import ScrapedImageFactory, ScrapeJobFactory

pytestmark = pytest.mark.django_db

SECRET = "sig=4711"


@pytest.fixture
def client():
    return client_of(UserFactory(staff=True, username="ada"))


def scraped(job: ScrapeJob, **fields) -> Image:
    """A picture that a crawl has brought, with the address it came from."""
    image = ImageFactory(
        source_kind=Image.SourceKind.SCRAPE,
        source_id=job.pk,
        source_index=job.items.count(),
        visibility=job.visibility,
    )
    ScrapedImageFactory(job=job, image=image, position=image.source_index, **fields)
    return image


def answer(client, image) -> dict:
    response = client.get(f"/api/images/{image.pk}/lineage")
    assert response.status_code == 200, response.content
    return response.json()


def nodes(graph, kind) -> list[dict]:
    return [node for node in graph["nodes"] if node["kind"] == kind]


def edges(graph) -> set[tuple[str, str, str]]:
    label = {node["key"]: node["label"] for node in graph["nodes"]}
    return {(label[edge["origin"]], edge["role"], label[edge["result"]]) for edge in graph["edges"]}


class TestLineage:
    def test_leads_from_a_picture_to_its_page_and_its_crawl(self, client):
        job = ScrapeJobFactory(name="cards")
        image = scraped(job, page_url="https://gallery.example/hearts")
        scraped(job, page_url="https://gallery.example/spades")

        assert edges(answer(client, image)) == {
            ("cards", "fetched", image.name),
            ("https://gallery.example/hearts", "fetched_from", image.name),
            ("cards", "met", "https://gallery.example/hearts"),
        }

    def test_tells_staff_all_that_is_known_of_the_source(self, client):
        image = scraped(
            ScrapeJobFactory(owner=UserFactory(staff=True, username="bob")),
            url=f"https://images.example/1.png?{SECRET}",
            final_url="https://cdn.example/1.png",
            redirects=["https://cdn.example/1.png"],
            robots="allowed",
            opt_out="tdm",
            licence="https://licences.example/by?lang=en",
        )

        graph = answer(client, image)

        [source], [crawl] = nodes(graph, "source"), nodes(graph, "scrape_job")
        sha256 = source["details"].pop("sha256")
        assert len(sha256) == 64
        assert datetime.fromisoformat(source["details"].pop("fetched_at")) == datetime(
            2026, 11, 1, tzinfo=UTC
        )
        assert source["details"] == {
            "host": "images.example",
            "page_host": "gallery.example",
            "state": "saved",
            "page_url": "https://gallery.example/",
            "url": f"https://images.example/1.png?{SECRET}",
            "final_url": "https://cdn.example/1.png",
            "redirects": ["https://cdn.example/1.png"],
            "status": 200,
            "robots": "allowed",
            "opt_out": "tdm",
            "licence": "https://licences.example/by?lang=en",
        }
        assert crawl["url"] == f"/api/scraping/jobs/{crawl['id']}"
        assert crawl["details"] == {"host": "gallery.example", "status": "pending", "owner": "bob"}

    @pytest.mark.parametrize("user", [None, "somebody"])
    def test_tells_others_hosts_and_licence_alone(self, user):
        image = scraped(
            ScrapeJobFactory(name="cards", visibility="public"),
            url=f"https://ada:pass@images.example/secret/1.png?{SECRET}",
            page_url=f"https://gallery.example/secret?{SECRET}",
            redirects=[f"https://cdn.example/secret?{SECRET}"],
            licence=f"https://ada:pass@licences.example/by?{SECRET}#{SECRET}",
        )

        graph = answer(client_of(UserFactory() if user else None), image)

        [source], [crawl] = nodes(graph, "source"), nodes(graph, "scrape_job")
        assert (source["label"], source["url"]) == ("images.example", None)
        assert source["details"] == {
            "host": "images.example",
            "page_host": "gallery.example",
            "licence": "https://licences.example/by",
        }
        assert (crawl["label"], crawl["url"], crawl["details"]) == (
            "cards",
            None,
            {"host": "gallery.example"},
        )
        told = json.dumps(graph)
        assert not [word for word in (SECRET, "secret", "pass", "cdn") if word in told]

    @pytest.mark.parametrize("licence", ["javascript:alert(1)", "https://[broken", "free for all"])
    def test_shows_the_public_no_licence_that_is_no_address(self, licence):
        image = scraped(ScrapeJobFactory(visibility="public"), licence=licence)

        [source] = nodes(answer(client_of(), image), "source")
        assert source["details"]["licence"] == ""

    def test_shows_the_public_nothing_of_what_it_may_not_see(self):
        hidden = scraped(ScrapeJobFactory(name="private matter"))
        poster = ImageFactory(public=True)

        assert client_of().get(f"/api/images/{hidden.pk}/lineage").status_code == 404
        assert [node["kind"] for node in answer(client_of(), poster)["nodes"]] == ["image"]

    def test_names_no_source_of_a_picture_that_is_hidden(self):
        hidden, shown = scraped(ScrapeJobFactory()), scraped(ScrapeJobFactory(visibility="public"))
        keys = [Key("source", str(image.scraped_from.get().pk)) for image in (hidden, shown)]

        assert list(lineage.describe_all(keys, AnonymousUser())) == keys[1:]

    def test_goes_on_from_what_was_made_of_a_picture(self, client, monkeypatch):
        source = scraped(ScrapeJobFactory(name="cards"))
        made = ImageFactory()
        monkeypatch.setattr(lineage, "_origins", lineage.defaultdict(list, lineage._origins))
        lineage._origins[IMAGE] = [*lineage._origins[IMAGE]]
        lineage.register_links(
            IMAGE,
            origins=lambda ids: (
                [Edge(Key(IMAGE, str(source.pk)), Key(IMAGE, str(made.pk)), "made")]
                if str(made.pk) in ids
                else []
            ),
        )

        assert ("https://gallery.example/", "fetched_from", source.name) in edges(answer(client, made))

    def test_a_picture_that_was_there_already_comes_from_nowhere_but_was_found(self, client):
        mine = ImageFactory(name="mine")
        job = ScrapeJobFactory(name="cards")
        ScrapedImageFactory(job=job, image=mine, state="duplicate", reason="in_library", page_url="")

        graph = answer(client, mine)

        [source] = nodes(graph, "source")
        assert (source["label"], "found_at", "mine") in edges(graph)
        assert ("cards", "met", source["label"]) in edges(graph)
        assert ("cards", "fetched", "mine") not in edges(graph)

    def test_names_the_crawls_before(self, client):
        first = ScrapeJobFactory(name="cards")
        image = scraped(ScrapeJobFactory(name="cards again", retry_of=first))

        assert ("cards", "tried_again", "cards again") in edges(answer(client, image))

    def test_costs_the_same_queries_for_one_source_and_for_many(self, client):
        def queries(count: int) -> int:
            image = ImageFactory()
            for _ in range(count):
                ScrapedImageFactory(image=image, state="duplicate")
            with CaptureQueriesContext(connection) as captured:
                answer(client, image)
            return len(captured)

        assert queries(1) == queries(7)


def test_no_crawl_keeps_a_picture_from_being_purged():
    image = scraped(ScrapeJobFactory())
    trash_images([image.pk])

    assert purge_images([image.pk]) == 1
    assert ScrapeJob.objects.get().items.get().image is None
