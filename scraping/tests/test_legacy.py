"""Crawls of the system before, and which of its images came by them."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from albums.models import Album, Image
from albums.services import delete_album, trash_images
from albums.tests.clients import client_of
from albums.tests.legacy.old_system import HEAD, SEED, OldSystem
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus
from imagehub.tests.canaries import CANARY
from scraping.models import ScrapedImage, ScrapedPage, ScrapeJob
from scraping.services.crawls import retry_crawl
from scraping.services.plans import plan_of

pytestmark = pytest.mark.django_db

SCRAPE_JOBS = """
    CREATE TABLE scrape_jobs (
        id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL, description TEXT, source_url VARCHAR(500) NOT NULL,
        scrape_config TEXT, status VARCHAR(50), progress INTEGER, images_scraped INTEGER, output_directory VARCHAR(500),
        {more} error_message TEXT, last_error_at DATETIME, created_at DATETIME, started_at DATETIME, completed_at DATETIME
    )
"""
OLD_FOLDER = "/mnt/storage/imagineer/scraped/{}"
URL = "https://gallery.example/cards"


@pytest.fixture(params=["seed", "head"])
def old(request, tmp_path):
    schema = {"seed": (SEED, ""), "head": (HEAD, "album_id INTEGER REFERENCES albums (id),")}
    tables, more = schema[request.param]
    return OldSystem(tmp_path / "old", [*tables, SCRAPE_JOBS.format(more=more)])


@pytest.fixture
def head(tmp_path):
    return OldSystem(tmp_path / "old", [*HEAD, SCRAPE_JOBS.format(more="album_id INTEGER,")])


@pytest.fixture(autouse=True)
def owner():
    return UserFactory(staff=True, username="ada")


def add_crawl(old, **values):
    values = {
        "name": "Cards",
        "source_url": URL,
        "scrape_config": json.dumps({"depth": 2, "max_images": 300, "follow_links": True}),
        "status": "completed",
        "progress": 100,
        "images_scraped": 2,
    } | values
    return old.add("scrape_jobs", **values)


def add_scraped_image(old, name, **values):
    """An image without a prompt, whose file lies in no folder of a crawl unless told so."""
    return old.add_image(name, **{"prompt": None, "folder": "elsewhere"} | values)


def import_legacy(old, owner="ada", **options):
    """Run the command; return its report, which adds up."""
    output = StringIO()
    with suppress(CommandError):  # that rows were refused: the report tells which
        call_command(
            "import_legacy", old.path, media=old.media, json=True, stdout=output, owner=owner, **options
        )
    report = json.loads(output.getvalue())
    assert report["adds_up"]
    assert CANARY not in output.getvalue()
    return report["tables"]


def counts(tables, table="scrape_jobs"):
    return tuple(tables[table][name] for name in ("found", "imported", "already_there", "refused"))


def crawls_of_images() -> dict[str, str | None]:
    """By the names of images, those of their crawls."""
    names = dict(ScrapeJob.objects.values_list("pk", "name"))
    return {
        image.name: names[image.source_id] if image.source_kind == "scrape" else None
        for image in Image.objects.all()
    }


class TestACrawl:
    def test_comes_over_as_it_ended(self, old, owner):
        add_crawl(
            old,
            description=f"Downloaded: 2 into {OLD_FOLDER.format(1)}",
            scrape_config=json.dumps(
                {"depth": 2, "max_images": 300, "follow_links": True, "runtime": {"discovered": 7}}
            ),
            created_at="2025-10-30 17:00:00",
            started_at="2025-10-30 17:00:05",
            completed_at="2025-10-30 17:10:00.5",
        )

        tables = import_legacy(old)

        assert counts(tables) == (1, 1, 0, 0)
        assert tables["scrape_jobs"]["notes"] == {"description that told of progress, left out": 1}
        job = ScrapeJob.objects.get()
        assert (job.name, job.description, job.owner, job.host) == ("Cards", "", owner, "gallery.example")
        assert (job.status, job.progress, job.end_reason) == (JobStatus.COMPLETED, 100, "imported")
        assert (job.images_found, job.images_saved, job.step, job.total_steps) == (7, 2, 2, 300)
        assert job.created_at == job.queued_at == datetime(2025, 10, 30, 17, tzinfo=UTC)
        assert job.started_at == datetime(2025, 10, 30, 17, 0, 5, tzinfo=UTC)
        assert job.finished_at == job.purged_at == datetime(2025, 10, 30, 17, 10, 0, 500_000, tzinfo=UTC)
        assert not ScrapedImage.objects.exists()
        assert not ScrapedPage.objects.exists()

    @pytest.mark.parametrize(
        ("config", "depth", "follow", "max_images"),
        [
            ({"depth": 2, "max_images": 300}, 2, "host", 300),
            ({"depth": 5, "follow_links": False}, 1, "nowhere", 1000),
            ({"depth": 99, "max_images": "many", "follow_links": "x"}, 3, "host", 1000),
            ([], 3, "host", 1000),
            ("{", 3, "host", 1000),
        ],
    )
    def test_can_be_done_again_politely(self, head, owner, config, depth, follow, max_images):
        add_crawl(head, scrape_config=config if isinstance(config, str) else json.dumps(config))
        import_legacy(head)

        again = retry_crawl(ScrapeJob.objects.get(), owner=owner)

        plan = plan_of(again)
        assert (plan.start_urls, plan.depth, plan.follow, plan.max_images) == (
            [URL],
            depth,
            follow,
            max_images,
        )
        assert (plan.obey_robots, plan.obey_opt_outs) == (True, True)
        assert (again.status, again.album_name, again.visibility) == ("queued", "Cards", "private")

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({"status": "completed"}, "completed"),
            ({"status": "failed"}, "failed"),
            ({"status": "cancelled"}, "cancelled"),
            ({"status": "cleaned_up"}, "completed"),
            ({"status": "cleaned_up", "error_message": "exit 1"}, "failed"),
            ({"status": "cleaned_up", "images_scraped": 0}, "cancelled"),
            ({"status": "pending", "images_scraped": None}, "cancelled"),
            ({"status": "running"}, "cancelled"),
            ({"status": None}, "cancelled"),
        ],
    )
    def test_has_ended(self, head, fields, status):
        add_crawl(head, **fields)

        tables = import_legacy(head)

        job = ScrapeJob.objects.get()
        assert (job.status, job.finished_at is not None) == (status, True)
        went_on = fields["status"] in ("pending", "running", None)
        assert ("crawl that had not ended, made cancelled" in tables["scrape_jobs"]["notes"]) is went_on

    def test_that_failed_keeps_its_error_for_staff(self, head):
        add_crawl(head, status="failed", error_message=f"no such folder {OLD_FOLDER.format(1)}")

        import_legacy(head)

        job = ScrapeJob.objects.get()
        assert (job.error_code, job.error_trace) == ("imported", f"no such folder {OLD_FOLDER.format(1)}")
        assert "/" not in job.error_detail

    def test_keeps_what_somebody_wrote_of_it_before_it_began(self, head):
        add_crawl(head, status="pending", progress=0, description="All hearts")

        import_legacy(head)

        assert ScrapeJob.objects.get().description == "All hearts"

    def test_tells_nobody_what_stands_behind_a_host(self, head):
        url = "https://ada:pass@Gallery.example:8443/cards?sig=4711#top"
        add_crawl(head, name=f"Scrape {url}", source_url=url)

        tables = import_legacy(head)

        job = ScrapeJob.objects.get()
        assert (job.name, job.host) == ("Scrape gallery.example", "gallery.example")
        assert job.config["start_urls"] == ["https://gallery.example:8443/cards?sig=4711"]
        assert tables["scrape_jobs"]["notes"] == {"password in an address, left out": 1}

    @pytest.mark.parametrize("url", ["", "ftp://gallery.example/", "https://", "https://[x", "http://1.2.3/"])
    def test_without_an_address_is_refused(self, head, url):
        add_crawl(head, source_url=url)

        tables = import_legacy(head)

        assert counts(tables) == (1, 0, 0, 1)
        assert tables["scrape_jobs"]["reasons"] == {"bad_address": 1}

    def test_without_an_owner_is_refused_and_comes_later(self, head):
        add_crawl(head)

        assert import_legacy(head, owner=None)["scrape_jobs"]["reasons"] == {"no_owner": 1}
        assert counts(import_legacy(head)) == (1, 1, 0, 0)

    def test_with_values_that_no_column_holds_comes_without_them(self, head):
        add_crawl(head, name="x" * 300, progress=700, images_scraped=-1, created_at="yesterday")

        assert counts(import_legacy(head)) == (1, 1, 0, 0)
        job = ScrapeJob.objects.get()
        assert (len(job.name), job.progress, job.images_saved) == (200, 100, 0)

    def test_of_a_host_with_a_long_name_is_called_after_its_beginning(self, head):
        host = ".".join(["a" * 60] * 4)
        add_crawl(head, name="", source_url=f"https://{host}/")

        assert counts(import_legacy(head)) == (1, 1, 0, 0)
        job = ScrapeJob.objects.get()
        assert (job.host, job.name, job.album_name) == (host, host[:200], host[:200])


class TestImagesOfACrawl:
    def fill(self, old) -> None:
        """Two crawls and one image that nobody has crawled."""
        add_crawl(old, name="Hearts", output_directory=OLD_FOLDER.format(1))
        add_crawl(old, name="Spades", output_directory=OLD_FOLDER.format(11))
        for number, name in ((1, "heart"), (11, "spade")):
            old.write(f"{number}/images/{name}.png")
            add_scraped_image(
                old, f"{name}.png", file=False, file_path=f"{OLD_FOLDER.format(number)}/images/{name}.png"
            )
        add_scraped_image(old, "upload.png")

    def test_are_told_by_the_folder_that_their_files_lay_in(self, old):
        self.fill(old)

        tables = import_legacy(old)

        assert crawls_of_images() == {"heart": "Hearts", "spade": "Spades", "upload": None}
        notes = tables["scrape_jobs"]["notes"]
        assert notes == {"image of which is known now that it came by a crawl": 2}

    def test_are_there_once_however_often_they_are_imported(self, old):
        self.fill(old)
        old.add_label(1, "two hearts", "scrape_alt_text")
        old.add_album("Mine", [1, 2, 3])
        import_legacy(old)
        before = list(Image.objects.order_by("pk").values())
        trash_images([Image.objects.get(name="heart").pk])

        again = import_legacy(old)

        assert [image | {"deleted_at": None} for image in Image.objects.order_by("pk").values()] == before
        for name, table in again.items():
            assert (table["imported"], table["refused"]) == (0, 0), name
        assert again["scrape_jobs"]["notes"] == {}
        assert Image.objects.get(name="heart").labels.get().origin == "scrape"

    def test_are_found_when_the_crawl_comes_later(self, old):
        self.fill(old)
        import_legacy(old, owner=None)
        assert set(crawls_of_images().values()) == {None}

        import_legacy(old)

        assert crawls_of_images() == {"heart": "Hearts", "spade": "Spades", "upload": None}
        assert Image.objects.count() == 3

    def test_are_counted_alike_in_a_dry_run_that_writes_nothing(self, old):
        self.fill(old)
        add_crawl(old, source_url="nowhere", output_directory=OLD_FOLDER.format(3))
        old.write("3/a.png")
        add_scraped_image(old, "a.png", file=False, file_path=OLD_FOLDER.format("3/a.png"))
        add_scraped_image(old, "lost.png", file=False, file_path=OLD_FOLDER.format("1/lost.png"))

        rehearsed = import_legacy(old, dry_run=True)

        assert not ScrapeJob.objects.exists()
        assert not Image.objects.exists()
        assert import_legacy(old) == rehearsed
        assert import_legacy(old, dry_run=True)["scrape_jobs"]["notes"] == {}

    def test_are_told_by_the_album_that_names_its_crawl(self, head):
        crawl = add_crawl(head, name="Hearts")
        image = add_scraped_image(head, "heart.png")
        made = head.add_image("made.png")
        head.add_album("Mine", [image, made], album_type="scraped", source_type="scrape", source_id=crawl)

        import_legacy(head)

        assert crawls_of_images() == {"heart": "Hearts", "made": None}
        assert ScrapeJob.objects.get().album == Album.objects.get()
        assert ScrapeJob.objects.get().album_name == ""

    def test_are_told_by_the_album_that_its_crawl_names(self, head):
        image = add_scraped_image(head, "heart.png")
        add_crawl(head, name="Hearts", album_id=head.add_album("Mine", [image]))

        import_legacy(head)

        assert crawls_of_images() == {"heart": "Hearts"}
        assert ScrapeJob.objects.get().album.name == "Mine"

    def test_are_told_by_the_name_of_an_album_if_only_one_crawl_had_it(self, old):
        for name in ("Hearts", "Spades", "Spades"):
            add_crawl(old, name=name)
        for name in ("Hearts", "Spades", "Clubs"):
            image = add_scraped_image(old, f"{name}.png")
            old.add_album(f"Scraped: {name}", [image], album_type="scraped")

        import_legacy(old)

        assert crawls_of_images() == {"Hearts": "Hearts", "Spades": None, "Clubs": None}

    def test_are_nobodys_where_two_crawls_claim_them(self, head):
        both, one = add_scraped_image(head, "both.png"), add_scraped_image(head, "one.png")
        first, second = add_crawl(head, name="Hearts"), add_crawl(head, name="Spades")
        for crawl, images in ((first, [both, one]), (second, [both])):
            head.add_album("Mine", images, source_type="scrape", source_id=crawl)
        shared = head.add_album("Shared", [add_scraped_image(head, "shared.png")])
        for _ in range(2):
            add_crawl(head, output_directory=OLD_FOLDER.format(1), album_id=shared)
        add_crawl(head, name="Root", output_directory="/")
        for path in (OLD_FOLDER.format("1/a.png"), "/b.png"):
            head.write(path[-5:])
            add_scraped_image(head, path[-5:], file=False, file_path=path)

        import_legacy(head)

        assert crawls_of_images() == {"one": "Hearts"} | dict.fromkeys(["both", "shared", "a", "b"])

    def test_have_their_crawl_in_their_lineage_and_are_taken_down_with_its_host(self, old, owner):
        self.fill(old)
        import_legacy(old)
        image = Image.objects.get(name="heart")

        graph = client_of(owner).get(f"/api/images/{image.pk}/lineage").json()
        output = StringIO()
        call_command("takedown", "--source-domain", "gallery.example", "--json", stdout=output)

        assert [node["label"] for node in graph["nodes"]] == ["heart", "Hearts"]
        crawled = Image.objects.filter(name__in=["heart", "spade"])
        assert {one["id"] for one in json.loads(output.getvalue())["found"]} == {
            str(image.pk) for image in crawled
        }

    def test_do_without_an_album_that_was_deleted_here(self, head):
        image = add_scraped_image(head, "heart.png")
        add_crawl(head, album_id=head.add_album("Mine", [image]))
        import_legacy(head, owner=None)
        delete_album(Album.objects.get())

        import_legacy(head)

        assert ScrapeJob.objects.count() == 1
