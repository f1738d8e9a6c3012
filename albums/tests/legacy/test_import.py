"""Both schemas, from the first row to the second run."""

import json
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from albums.legacy import registry
from albums.models import Album, AlbumImage, Image, Label, LabelRevision, Visibility
from albums.services import remove_label
from albums.tests.legacy.old_system import DECK, HEAD, SEED, OldSystem
from imagehub import storage
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.roots import media_root
from imagehub.tests.canaries import CANARY

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["seed", "head"])
def old(request, tmp_path):
    return OldSystem(tmp_path / "old", SEED if request.param == "seed" else HEAD)


@pytest.fixture
def seed(tmp_path):
    return OldSystem(tmp_path / "old", SEED)


def import_legacy(old, **options):
    """Run the command; return its report, which adds up."""
    output, failure = StringIO(), ""
    try:
        call_command("import_legacy", old.path, media=old.media, json=True, stdout=output, **options)
    except CommandError as error:
        failure = str(error)
    report = json.loads(output.getvalue())
    assert CANARY not in output.getvalue()
    assert report["adds_up"]
    refused = sum(table["refused"] for table in report["tables"].values())
    assert failure == (f"{refused} rows were refused." if refused else "")
    return report


def counts(report, table):
    """Return found, imported, there already, refused."""
    row = report["tables"][table]
    return row["found"], row["imported"], row["already_there"], row["refused"]


def everything():
    """Return all that an import writes, to be compared with itself."""
    return [
        list(model.objects.order_by("pk").values(*fields))
        for model, fields in (
            (Album, ["pk", "name", "kind", "visibility", "set_rows", "loras", "total_images", "created_at"]),
            (Image, ["pk", "name", "source_id", "visibility", "nsfw", "sha256", "prompt", "created_at"]),
            (Label, ["pk", "image", "kind", "text", "origin", "model", "confidence", "updated_at"]),
            (LabelRevision, ["label_id", "text", "changed_at"]),
            (AlbumImage, ["album", "image", "position"]),
        )
    ]


class TestALibrary:
    def fill(self, old):
        first, second, third = (old.add_image(f"heart_{number}.png") for number in range(3))
        old.add_label(first, "two hearts", "caption", source_model="claude-3-5-sonnet", confidence=0.9)
        old.add_label(first, "Red", source_model="claude-3-5-sonnet")
        old.add_label(second, "by hand", "manual", source_model="manual", created_by="admin@example.com")
        old.add_album("Hearts", [third, first, second])
        old.add_template("Cards")
        old.add("bug_reports", description="It does not work.")

    def test_is_imported(self, old):
        self.fill(old)
        ada = UserFactory(username="ada")

        report = import_legacy(old, owner="ada")

        assert counts(report, "images") == (3, 3, 0, 0)
        assert counts(report, "labels") == (3, 3, 0, 0)
        assert counts(report, "albums") == (2, 2, 0, 0)
        assert counts(report, "set_templates") == (1, 1, 0, 0)
        assert counts(report, "album_images") == (3, 3, 0, 0)
        assert report["left_alone"] == {"bug_reports": 1}
        album = Album.objects.get(name="Hearts")
        assert [place.image.name for place in album.memberships.in_order()] == [
            "heart_2",
            "heart_0",
            "heart_1",
        ]
        assert (album.kind, album.visibility, album.owner, album.total_images) == ("manual", "public", ada, 3)
        image = Image.objects.get(name="heart_0")
        assert (image.source_kind, image.owner, image.original_name) == ("import", ada, "heart_0.png")
        assert image.created_at == datetime(2025, 10, 30, 17, 0, 1, 123456, tzinfo=UTC)
        assert image.prompt == f"a red heart, {CANARY}"
        assert storage.path_of(image.storage_name).is_file()
        assert {
            (label.kind, label.origin, label.model, label.confidence) for label in image.labels.all()
        } == {
            ("caption", "model", "claude-3-5-sonnet", 0.9),
            ("tag", "model", "claude-3-5-sonnet", None),
        }
        assert Label.objects.get(origin="human").kind == "tag"
        assert CANARY in image.text.document

    def test_is_imported_twice_with_the_same_result(self, old):
        self.fill(old)
        import_legacy(old)
        before = everything()

        report = import_legacy(old)

        assert everything() == before
        for name, table in report["tables"].items():
            assert (table["imported"], table["refused"]) == (0, 0), name
            assert table["already_there"] == table["found"], name

    def test_is_only_looked_at_in_a_dry_run(self, old):
        self.fill(old)
        old.add_image("lost.png", file=False)

        report = import_legacy(old, dry_run=True)

        assert everything() == [[], [], [], [], []]
        assert not AuditEntry.objects.exists()
        assert not list(media_root().rglob("*.png"))
        real = import_legacy(old)
        assert report["tables"] == real["tables"]
        assert counts(real, "images") == (4, 3, 0, 1)
        again = import_legacy(old, dry_run=True)
        assert [counts(again, name)[1] for name in again["tables"]] == [0] * len(again["tables"])

    def test_is_left_as_it_was(self, old):
        self.fill(old)

        def state():
            return {
                path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
                for path in [old.path.parent, *old.path.parent.rglob("*")]
            }

        before = state()
        import_legacy(old)

        assert state() == before

    def test_has_the_same_ids_wherever_its_copy_lies(self, old, tmp_path):
        self.fill(old)
        import_legacy(old)
        before = everything()
        old.path = old.path.rename(tmp_path / "copy.sqlite")

        import_legacy(old)

        assert everything() == before

    def test_is_not_taken_for_another_with_the_same_ids(self, old, tmp_path):
        other = OldSystem(tmp_path / "other", SEED)
        other.add("bug_reports", description="It does not work.")  # so that all else is of another time
        for system in (old, other):
            self.fill(system)
            import_legacy(system)

        assert (Image.objects.count(), Album.objects.count(), Label.objects.count()) == (6, 4, 6)

    def test_that_has_grown_brings_what_is_new(self, old):
        self.fill(old)
        import_legacy(old)
        new = old.add_image("new.png")
        old.add("album_images", album_id=1, image_id=new, sort_order=0)
        old.add_label(1, "another")

        report = import_legacy(old)

        assert counts(report, "images") == (4, 1, 3, 0)
        assert counts(report, "labels") == (4, 1, 3, 0)
        assert counts(report, "album_images") == (4, 1, 3, 0)

    def test_leaves_an_audit_entry(self, old):
        self.fill(old)

        import_legacy(old)

        entry = AuditEntry.objects.get(action="legacy.import")
        assert (entry.via, entry.after["images"]) == ("command", 3)


class TestImages:
    def one(self, report=None):
        return Image.objects.get()

    @pytest.mark.parametrize(
        ("is_public", "visibility"),
        [
            (1, "public"),
            (0, "private"),
            (None, "private"),
            ("false", "private"),
            ("true", "public"),
            (7, "private"),
        ],
    )
    def test_are_public_only_beyond_doubt(self, seed, is_public, visibility):
        seed.add_image("a.png", is_public=is_public)

        import_legacy(seed)

        assert self.one().visibility == visibility

    @pytest.mark.parametrize(
        ("is_nsfw", "nsfw"),
        [(1, "flagged"), (0, "unknown"), (None, "unknown"), ("true", "flagged"), ("UNSAFE", "flagged")],
    )
    def test_that_nobody_flagged_are_not_known_to_be_safe(self, seed, is_nsfw, nsfw):
        seed.add_image("a.png", is_nsfw=is_nsfw)

        import_legacy(seed)

        assert self.one().nsfw == nsfw

    def test_keep_how_they_were_made_and_no_path(self, seed):
        loras = [
            {"path": "/mnt/speedy/lora/watercolour.safetensors", "weight": 0.8},
            {"path": "C:\\x\\ink.pt"},
        ]
        seed.add_image(
            "a.png",
            seed=0,
            steps=25,
            guidance_scale=7.5,
            negative_prompt="blur",
            lora_config=json.dumps(loras),
        )

        import_legacy(seed)

        image = self.one()
        assert (image.seed, image.steps, image.guidance_scale, image.negative_prompt) == (0, 25, 7.5, "blur")
        assert image.loras == [
            {"id": None, "name": "watercolour", "weight": 0.8},
            {"id": None, "name": "ink", "weight": 1.0},
        ]

    def test_come_without_numbers_that_cannot_be(self, seed):
        values = {
            "seed": -1,
            "steps": "many",
            "guidance_scale": 9e999,
            "lora_config": "{broken",
            "created_at": "x",
        }
        seed.add_image("a.png", **values)

        report = import_legacy(seed)

        image = self.one()
        assert (image.seed, image.steps, image.guidance_scale, image.loras) == (None, None, None, [])
        assert len(report["tables"]["images"]["notes"]) == 5

    def test_of_equal_bytes_are_two_with_one_file(self, seed):
        seed.add_image("a.png")
        seed.add_image("b.png")

        import_legacy(seed)

        assert Image.objects.count() == 2
        assert len(list(storage.walk("images"))) == 1

    @pytest.mark.parametrize(
        ("file_path", "code"),
        [
            ("/mnt/speedy/imagineer/outputs/lost.png", "missing_file"),
            ("", "missing_file"),
            ("x" * 300, "missing_file"),
            ("../secret.png", "unsafe_path"),
            ("/mnt/speedy/../../secret.png", "unsafe_path"),
            ("uploads\\..\\..\\secret.png", "unsafe_path"),
            ("{outside}", "outside_media"),
            ("link.png", "unsafe_path"),
            ("folder/secret.png", "unsafe_path"),
            ("animation.png", "unsupported_media_type"),
            ("damaged.png", "unreadable_picture"),
            ("empty.png", "unsupported_media_type"),
        ],
    )
    def test_whose_file_cannot_be_taken_are_refused(self, seed, tmp_path, file_path, code):
        seed.write("animation.png", file_format="GIF")
        seed.write("damaged.png", b"\x89PNG\r\n\x1a\n" + b"x" * 50)
        seed.write("empty.png", b"")
        outside = tmp_path / "elsewhere"
        outside.mkdir()
        (outside / "secret.png").write_bytes(b"secret")
        (seed.path.parent / "secret.png").write_bytes(b"secret")
        (seed.media / "link.png").symlink_to(outside / "secret.png")
        (seed.media / "folder").symlink_to(outside)
        seed.add_image("a.png", file=False, file_path=file_path.format(outside=outside / "secret.png"))

        report = import_legacy(seed)

        assert report["tables"]["images"]["reasons"] == {code: 1}
        assert not Image.objects.exists()

    def test_are_found_by_the_longest_end_of_their_old_path(self, seed):
        seed.write("uploads/1/a.png", color="red")
        seed.write("a.png", color="blue")
        seed.add_image("a.png", file=False, file_path="/mnt/outputs/uploads/1/a.png")
        seed.add_image("b.png", file=False, file_path="D:\\outputs\\uploads\\2\\a.png")
        seed.add_image("c.png", file=False, file_path=str(seed.media / "uploads/1/a.png"))

        import_legacy(seed)

        shas = {image.name: image.sha256 for image in Image.objects.all()}
        assert shas["a"] == shas["c"] != shas["b"]

    def test_are_what_their_bytes_say_whatever_they_are_called(self, seed):
        seed.write("a.png", file_format="JPEG")
        seed.add_image("a.png", file=False, file_path="a.png")

        import_legacy(seed)

        assert self.one().format == "jpeg"

    def test_that_failed_are_brought_by_the_next_run(self, seed):
        image = seed.add_image("a.png", file=False)
        seed.add_label(image, "heart")
        seed.add_album("Hearts", [image])
        first = import_legacy(seed)
        seed.write("uploads/20251030_170000/a.png")

        second = import_legacy(seed)

        for table, code in (("images", "missing_file"), ("labels", "image_not_imported")):
            assert first["tables"][table]["reasons"] == {code: 1}
        for table in ("images", "labels", "album_images"):
            assert counts(second, table) == (1, 1, 0, 0)
        assert Album.objects.get().total_images == 1

    def test_may_be_too_large_for_now(self, seed, set_config):
        set_config("storage: {minimum_free_bytes: 0}\nuploads: {max_file_bytes: 10}")
        seed.add_image("a.png")

        assert import_legacy(seed)["tables"]["images"]["reasons"] == {"too_large": 1}

    def test_stop_when_the_disk_is_full_and_go_on_later(self, seed, set_config):
        seed.add_image("a.png")
        set_config("storage: {minimum_free_bytes: 1000000000000000}")
        with pytest.raises(CommandError, match="full"):
            call_command("import_legacy", seed.path, media=seed.media, stdout=StringIO())
        set_config("storage: {minimum_free_bytes: 0}")

        assert counts(import_legacy(seed), "images") == (1, 1, 0, 0)


class TestLabels:
    @pytest.mark.parametrize(
        ("label_type", "source_model", "created_by", "said"),
        [
            ("caption", "claude-3-5-sonnet", None, ("caption", "model", "claude-3-5-sonnet")),
            ("caption", "scraper", None, ("caption", "scrape", "")),
            ("caption", "manual", "a@example.com", ("caption", "human", "")),
            ("caption", None, None, ("caption", "import", "")),
            ("TAG", "claude-3-5-sonnet", None, ("tag", "model", "claude-3-5-sonnet")),
            ("tag", "manual", None, ("tag", "human", "")),
            ("tag", None, "a@example.com", ("tag", "human", "")),
            ("manual", "manual", None, ("tag", "human", "")),
            ("user", None, None, ("tag", "human", "")),
            ("ai_generated", None, None, ("caption", "model", "unknown")),
            ("scrape_alt_text", None, None, ("caption", "scrape", "")),
            ("scrape_title", None, None, ("caption", "scrape", "")),
        ],
    )
    def test_keep_what_they_are_and_who_says_so(self, seed, label_type, source_model, created_by, said):
        image = seed.add_image("a.png")
        seed.add_label(image, "hearts", label_type, source_model=source_model, created_by=created_by)

        import_legacy(seed)

        label = Label.objects.get()
        assert (label.kind, label.origin, label.model) == said
        assert label.created_at.year == 2025

    def test_that_cannot_be_are_refused_with_the_reason(self, seed):
        image = seed.add_image("a.png")
        seed.add_label(image, "mood", "mood")
        seed.add_label(image, "x" * 101, "tag")
        seed.add_label(999, "of nothing")
        seed.add_label(None, "of nobody")
        seed.add("labels", image_id=image, label_text=" \n", label_type="tag")

        report = import_legacy(seed)

        assert report["tables"]["labels"]["reasons"] == {
            "unknown_type": 1,
            "max_length": 1,
            "orphan": 2,
            "blank": 1,
        }

    def test_of_impossible_confidence_come_without_it(self, seed):
        seed.add_label(seed.add_image("a.png"), "heart", source_model="tagger", confidence=87)

        report = import_legacy(seed)

        assert Label.objects.get().confidence is None
        assert report["tables"]["labels"]["notes"] == {"confidence out of range, left out": 1}

    def test_of_a_model_that_ran_three_times_are_the_last_and_its_history(self, seed):
        image = seed.add_image("a.png")
        for text in ("first", "second", "third", "third"):
            seed.add_label(image, text, "caption", source_model="blip")

        report = import_legacy(seed)
        again = import_legacy(seed)

        assert Label.objects.get().text == f"third {CANARY}"
        texts = LabelRevision.objects.order_by("written_at").values_list("text", flat=True)
        assert list(texts) == [f"first {CANARY}", f"second {CANARY}"]
        assert counts(report, "labels") == (4, 3, 1, 0)
        assert counts(again, "labels") == (4, 0, 4, 0)

    def test_of_a_page_are_its_caption_before_its_title(self, seed):
        image = seed.add_image("a.png")
        for name in ("scrape_caption", "scrape_title", "scrape_alt_text"):
            seed.add_label(image, name, name)

        import_legacy(seed)

        assert Label.objects.get().text == f"scrape_caption {CANARY}"
        assert LabelRevision.objects.count() == 2

    def test_that_people_removed_or_changed_here_do_not_come_back(self, seed):
        image = seed.add_image("a.png")
        seed.add_label(image, "wrong")
        seed.add_label(image, "right")
        import_legacy(seed)
        remove_label(Label.objects.get(text__startswith="wrong"), user=None)

        report = import_legacy(seed)

        assert counts(report, "labels") == (2, 0, 2, 0)
        assert Label.objects.count() == 1

    def test_of_one_image_may_be_more_than_a_batch(self, seed, monkeypatch):
        monkeypatch.setattr("albums.legacy.label_rows.BATCH", 2)
        images = [seed.add_image(f"{name}.png") for name in "abc"]
        for image in [*images, None]:
            for number in range(5):
                seed.add_label(image, f"tag {number}")

        assert counts(import_legacy(seed), "labels") == (20, 15, 0, 5)


class TestAlbums:
    @pytest.mark.parametrize(
        ("album_type", "kind"),
        [
            ("batch", "generated"),
            ("scraped", "scrape"),
            ("uploaded", "upload"),
            ("zodiac", "set"),
            ("odd", "manual"),
        ],
    )
    def test_are_of_the_kind_that_is_meant(self, seed, album_type, kind):
        seed.add_album("a", album_type=album_type)

        import_legacy(seed)

        assert Album.objects.get().kind == kind

    def test_have_a_name_that_fits(self, seed):
        seed.add_album("x" * 255)
        seed.add_album("  ")

        report = import_legacy(seed)

        assert sorted(album.name for album in Album.objects.all()) == ["Album 2", "x" * 200]
        assert report["tables"]["albums"]["notes"] == {"name that is missing or too long, changed": 2}

    def test_keep_private_images_from_everybody(self, seed):
        images = [seed.add_image(f"{number}.png", is_public=number) for number in range(2)]
        seed.add_album("a", images)

        import_legacy(seed)

        album = Album.objects.get()
        assert (album.visibility, album.total_images, album.public_images) == (Visibility.PUBLIC, 2, 1)

    def test_come_in_the_order_they_had(self, seed):
        first, second, third = (seed.add_image(f"{number}.png") for number in range(3))
        album = seed.add_album("a")
        for image, order in ((first, 2), (second, None), (third, 1)):
            seed.add("album_images", album_id=album, image_id=image, sort_order=order)

        import_legacy(seed)

        places = AlbumImage.objects.order_by("position")
        assert [place.image.name for place in places] == ["1", "2", "0"]

    def test_whose_places_lead_nowhere_are_told(self, seed):
        image = seed.add_image("a.png")
        seed.add_album("a", [image, 999])
        seed.add("album_images", album_id=999, image_id=image)

        report = import_legacy(seed)

        assert counts(report, "album_images") == (3, 1, 0, 2)
        assert report["tables"]["album_images"]["reasons"] == {"orphan": 2}


class TestSets:
    def test_are_albums_with_a_template(self, seed):
        seed.add_template("Cards")

        import_legacy(seed)

        album = Album.objects.get()
        assert (album.kind, album.is_set_template, album.set_rows) == ("set", True, DECK)
        assert album.prompt_template == "{value} of {suit}"
        assert (album.base_prompt, album.style_suffix) == (f"a playing card, {CANARY}", "high quality")
        assert (album.example_theme, album.negative_prompt) == ("art deco", "blurry")
        assert (album.width, album.height) == (512, 720)
        assert album.loras == [{"id": "card_style", "weight": 0.6}]

    def test_of_the_later_time_stood_in_a_table_of_their_own(self, tmp_path):
        head = OldSystem(tmp_path / "old", HEAD)
        deck = {"csv_data": json.dumps(DECK), "prompt_template": "{value}", "width": 512, "height": 719}
        head.add("batch_templates", name="Cards", csv_path="/mnt/speedy/sets/cards.csv", **deck)
        head.add("batch_templates", name="Broken", **(deck | {"csv_data": "[{"}))

        report = import_legacy(head)

        album = Album.objects.get()
        assert (album.name, album.visibility, album.set_rows) == ("Cards", "private", DECK)
        assert (album.width, album.height) == (512, None)
        assert report["tables"]["batch_templates"]["reasons"] == {"broken_json": 1}
        assert counts(import_legacy(head), "batch_templates") == (2, 0, 1, 1)

    @pytest.mark.parametrize(
        ("values", "code"),
        [
            ({"csv_data": "[{broken"}, "broken_json"),
            ({"csv_data": "[" * 100_000}, "broken_json"),
            ({"csv_data": None}, "no_rows"),
            ({"csv_data": "[]"}, "no_rows"),
            ({"csv_data": '{"a": "b"}'}, "broken_rows"),
            ({"csv_data": '[{"a": ["b"]}]'}, "broken_rows"),
            ({"base_prompt": "x" * 2001}, "too_long"),
            ({"example_theme": "x" * 501}, "too_long"),
            ({"prompt_template": "{nope}"}, "unknown_placeholder"),
        ],
    )
    def test_that_are_broken_leave_an_album_until_they_are_mended(self, seed, values, code):
        template = seed.add_template("Cards", **values)

        report = import_legacy(seed)

        assert counts(report, "albums") == (1, 1, 0, 0)
        assert report["tables"]["set_templates"]["reasons"] == {code: 1}
        assert not Album.objects.get().is_set_template
        with seed.connection() as connection:
            connection.execute(
                "UPDATE albums SET csv_data = ?, base_prompt = '', example_theme = '', prompt_template = '{value}' WHERE id = ?",
                [json.dumps(DECK), template],
            )
        report = import_legacy(seed)
        assert counts(report, "set_templates") == (1, 1, 0, 0)
        assert Album.objects.get().set_rows == DECK

    def test_have_cells_of_text(self, seed):
        seed.add_template("Cards", csv_data='[{"value": 7, "suit": null}]', lora_config='{"path": "/l/a.pt"}')

        import_legacy(seed)

        album = Album.objects.get()
        assert album.set_rows == [{"value": "7", "suit": ""}]
        assert album.loras == [{"id": "a", "weight": 1.0}]


class TestTheCommand:
    def test_says_what_was_refused_to_people_too(self, seed):
        seed.add_image("a.png", file=False)
        output = StringIO()

        with pytest.raises(CommandError, match="1 rows were refused"):
            call_command("import_legacy", seed.path, media=seed.media, stdout=output)

        assert "images: 1 found = 0 imported + 0 there already + 1 refused." in output.getvalue()
        assert "1: missing_file. a.png: Its file is not in the media folder." in output.getvalue()

    @pytest.mark.parametrize("content", [None, b"", b"not a database", b"SQLite format 3\0" + b"x" * 4000])
    def test_refuses_what_is_no_database(self, tmp_path, content):
        path = tmp_path / "some.db"
        if content is not None:
            path.write_bytes(content)

        with pytest.raises(CommandError):
            call_command("import_legacy", path, stdout=StringIO())

        assert not Album.objects.exists()

    def test_refuses_a_folder_and_an_owner_that_are_not_there(self, seed):
        with pytest.raises(CommandError, match="no folder"):
            call_command("import_legacy", seed.path, media=seed.media / "lost")
        with pytest.raises(CommandError, match="no user"):
            call_command("import_legacy", seed.path, media=seed.media, owner="nobody")

    def test_takes_the_folder_of_the_database_when_none_is_named(self, seed):
        seed.add_image("a.png")

        call_command("import_legacy", seed.path, stdout=StringIO())

        assert Image.objects.count() == 1

    def test_runs_the_importers_of_other_apps_in_turn(self, seed, monkeypatch):
        monkeypatch.setattr(registry, "_importers", registry.importers())

        def import_jobs(run):
            table = run.report.table("bug_reports")
            for row in run.source.rows("bug_reports", ["id", "no_such_column"]):
                assert row["no_such_column"] is None
                table.found += 1
                table.imported += 1

        registry.register("jobs", import_jobs)
        seed.add("bug_reports", description="It does not work.")

        report = import_legacy(seed)

        assert counts(report, "bug_reports") == (1, 1, 0, 0)
        assert report["left_alone"] == {}
        first, *_, last = registry.importers()
        assert (first, last) == ("library", "jobs")

    def test_does_not_believe_an_importer_that_forgets_rows(self, seed, monkeypatch):
        monkeypatch.setattr(
            registry, "_importers", {"liar": lambda run: setattr(run.report.table("x"), "found", 1)}
        )

        with pytest.raises(CommandError, match="sums"):
            call_command("import_legacy", seed.path, media=seed.media, stdout=StringIO())

    def test_leaves_no_copies_behind(self, seed):
        seed.add_image("a.png")
        seed.write("damaged.png", b"\x89PNG damaged")
        seed.add_image("b.png", file=False, file_path="damaged.png")

        import_legacy(seed)

        assert not list((media_root() / "staging").iterdir())
