import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from albums.models import Album, Image, Label, LabelKind
from albums.services import folders
from albums.services.folders import find_pictures
from albums.tests.factories import AlbumFactory, picture
from imagehub import storage
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


def add(folder, name="heart.png", *, txt=None, say=None, content=None, **options):
    """Put a picture into a folder, with what is said about it beside it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(**options) if content is None else content)
    if txt is not None:
        path.with_suffix(".txt").write_text(txt)
    if say is not None:
        path.with_suffix(".json").write_text(say if isinstance(say, str) else json.dumps(say))
    return path


def run(folder, album="Hearts", **options):
    """Run the command; return what it told as JSON, and whether it succeeded."""
    output = StringIO()
    try:
        call_command("import_images", str(folder), album=album, json=True, stdout=output, **options)
    except CommandError as error:
        if not output.getvalue():
            raise
        return json.loads(output.getvalue()) | {"failed": str(error)}
    return json.loads(output.getvalue()) | {"failed": ""}


def counts(report):
    return report["found"], report["imported"], report["already_there"], len(report["refused"])


def names(images=None):
    return list((images or Image.objects).order_by("name").values_list("name", flat=True))


class TestImport:
    def test_a_folder_becomes_an_album(self, folder):
        for number in (10, 9, 1):
            add(folder, f"card {number}.png", color=(number, 0, 0))
        add(folder, "more/joker.jpg", file_format="JPEG")
        owner = UserFactory(username="ada")

        report = run(folder, visibility="public", owner="ada")

        album = Album.objects.get()
        assert counts(report) == (4, 4, 0, 0)
        assert report["album"] == {"id": str(album.pk), "name": "Hearts", "new": True}
        assert (album.kind, album.visibility, album.owner, album.total_images) == (
            "manual",
            "public",
            owner,
            4,
        )
        in_order = [place.image.name for place in album.memberships.in_order()]
        assert in_order == ["card 1", "card 9", "card 10", "joker"]
        image = Image.objects.get(name="joker")
        assert (image.source_kind, image.original_name, image.owner) == ("import", "joker.jpg", owner)
        assert image.visibility == "public"
        assert storage.path_of(image.storage_name).is_file()

    def test_an_album_that_is_there_gets_them(self, folder):
        add(folder)
        album, other = AlbumFactory(name="Hearts"), AlbumFactory(name="Spades")

        assert run(folder)["album"]["new"] is False
        assert run(folder, album=str(other.pk))["imported"] == 1

        assert album.memberships.count() == other.memberships.count() == 1
        assert Image.objects.get(albums=album).visibility == "private"

    def test_nothing_is_imported_twice(self, folder):
        add(folder, "a.png", txt="a heart")
        add(folder, "the same.png")
        first = run(folder)
        add(folder, "b.png", color="blue")

        second, third = run(folder), run(folder)

        assert counts(first) == (2, 1, 1, 0)
        assert counts(second) == (3, 1, 2, 0)
        assert counts(third) == (3, 0, 3, 0)
        assert Image.objects.count() == Album.objects.get().total_images == 2
        assert Label.objects.count() == 1

    def test_what_lies_in_the_trash_is_not_imported_again(self, folder):
        add(folder)
        run(folder)
        Image.objects.update(deleted_at="2026-01-01T00:00Z")

        assert counts(run(folder)) == (1, 0, 1, 0)

    def test_the_pictures_themselves_stay_as_they_are(self, folder):
        path = add(folder)

        run(folder)

        assert path.read_bytes() == picture()

    def test_the_folders_within_can_be_left_out(self, folder):
        add(folder)
        add(folder, "more/blue.png", color="blue")

        assert run(folder, no_recursive=True)["found"] == 1

    def test_a_dry_run_tells_the_same_and_writes_nothing(self, folder):
        add(folder)
        add(folder, "no.png", content=b"no picture")

        report = run(folder, dry_run=True)

        assert counts(report) == (2, 1, 0, 1)
        assert report["failed"]
        assert not Image.objects.exists()
        assert not Album.objects.exists()
        assert list(storage.walk("images")) == []

    def test_many_are_imported_in_batches(self, folder, monkeypatch):
        monkeypatch.setattr(folders, "BATCH", 2)
        for number in range(5):
            add(folder, f"{number}.png", color=(number, 0, 0), txt=str(number))

        assert counts(run(folder)) == (5, 5, 0, 0)
        assert Album.objects.get().total_images == Label.objects.count() == 5

    def test_an_import_that_is_interrupted_goes_on_where_it_was(self, folder, monkeypatch):
        monkeypatch.setattr(folders, "BATCH", 2)
        for number in range(5):
            add(folder, f"{number}.png", color=(number, 0, 0), txt=str(number))
        write = folders._write

        def interrupted(files, *args):
            if any(file.name == "2.png" for file in files):
                raise KeyboardInterrupt
            return write(files, *args)

        with monkeypatch.context() as patch:
            patch.setattr(folders, "_write", interrupted)
            report = run(folder)

        assert "Interrupted" in report["stopped"]
        assert counts(report) == (2, 2, 0, 0)
        assert Image.objects.count() == Label.objects.count() == Album.objects.get().total_images == 2
        assert list(storage.path_of("staging").iterdir()) == []
        assert counts(run(folder)) == (5, 3, 2, 0)

    def test_it_is_told_in_words_as_well(self, folder):
        add(folder)
        add(folder, "no.png", content=b"no picture")
        output = StringIO()

        with pytest.raises(CommandError, match="1 files were refused"):
            call_command("import_images", str(folder), album="Hearts", stdout=output)

        assert "2 pictures found: 1 imported into “Hearts”, 0 there already, 1 refused" in output.getvalue()
        assert "no.png: Only PNG, JPEG and WebP pictures are accepted." in output.getvalue()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"owner": "nobody"}, "no user nobody"),
            ({"album": "01a212ab-e42f-7749-9fe9-e2062007175c"}, "no album"),
            ({"album": "x" * 201}, "cannot be called that"),
        ],
    )
    def test_options_that_lead_nowhere(self, folder, options, said):
        with pytest.raises(CommandError, match=said):
            run(folder, **options)

    def test_a_name_of_several_albums(self, folder):
        AlbumFactory.create_batch(2, name="Hearts")

        with pytest.raises(CommandError, match="Several albums"):
            run(folder)

    def test_a_folder_that_is_not_there(self, folder):
        with pytest.raises(CommandError, match="no folder"):
            run(folder / "nothing")


class TestRefusals:
    def refused(self, report):
        assert report["failed"]
        return {file["path"]: file["code"] for file in report["refused"]}

    def test_what_uploads_refuse_is_refused(self, folder):
        add(folder, "fine.png")
        add(folder, "a.gif", content=b"GIF89a")
        add(folder, "b.png", content=picture()[:-30])
        add(folder, "more/c.jpg", color="blue")
        add(folder, "notes.md", content=b"no picture, and nobody thinks so")

        report = run(folder)

        assert report["imported"] == 1
        assert self.refused(report) == {
            "a.gif": "unsupported_media_type",
            "b.png": "unreadable_picture",
            "more/c.jpg": "type_mismatch",
        }

    def test_a_file_that_is_too_large(self, folder, set_config):
        add(folder)
        set_config("{storage: {minimum_free_bytes: 0}, uploads: {max_file_bytes: 10}}")

        assert self.refused(run(folder)) == {"heart.png": "too_large"}

    def test_links_are_not_followed(self, folder, tmp_path):
        outside = tmp_path / "outside"
        add(outside, "secret.png")
        (folder / "a.png").symlink_to(outside / "secret.png")
        (folder / "b").symlink_to(outside)
        add(folder, "c.png", color="blue").with_suffix(".txt").symlink_to("/etc/hostname")

        report = run(folder)

        assert self.refused(report) == {"a.png": "link", "b": "link", "c.png": "bad_sidecar"}
        assert not Image.objects.exists()

    def test_a_full_disk_ends_it(self, folder, set_config):
        add(folder)
        set_config("storage: {minimum_free_bytes: 1000000000000000}")

        report = run(folder)

        assert "disk is full" in report["stopped"]
        assert not Image.objects.exists()


class TestSidecars:
    def labels(self):
        return {
            (label.kind, label.text)
            for label in Label.objects.filter(origin="import", image=Image.objects.get())
        }

    def test_the_text_beside_a_picture_is_its_caption(self, folder):
        add(folder, txt="\ufeffa red heart, on white\n")

        assert run(folder)["labels"] == 1
        assert self.labels() == {("caption", "a red heart, on white")}

    def test_it_may_be_called_like_the_whole_file(self, folder):
        add(folder)
        (folder / "heart.png.txt").write_text("a red heart")

        run(folder)

        assert self.labels() == {("caption", "a red heart")}

    def test_an_empty_text_says_nothing(self, folder):
        add(folder, txt=" \n")

        assert run(folder)["labels"] == 0

    def test_a_json_file_tells_more(self, folder):
        said = {
            "caption": "a red heart",
            "tags": ["red", "Heart", " "],
            "name": "The heart",
            "prompt": "heart",
            "negative_prompt": "blur",
            "seed": 7,
            "steps": 25,
            "guidance_scale": 7,
            "scheduler": "ddim",
            "base_model": "starter",
            "something": {"else": 1},
        }
        add(folder, say=said, txt="not this one")

        assert run(folder)["failed"] == ""

        image = Image.objects.get()
        assert (image.name, image.prompt, image.negative_prompt) == ("The heart", "heart", "blur")
        assert (image.seed, image.steps, image.guidance_scale) == (7, 25, 7.0)
        assert (image.scheduler, image.base_model) == ("ddim", "starter")
        assert self.labels() == {("caption", "a red heart"), ("tag", "red"), ("tag", "Heart")}

    def test_tags_may_be_one_string(self, folder):
        add(folder, say={"tags": "red, heart"}, txt="a red heart")

        run(folder)

        assert self.labels() == {("caption", "a red heart"), ("tag", "red"), ("tag", "heart")}

    @pytest.mark.parametrize(
        "say",
        [
            "no json", "[]", "{", '{"seed": "7"}', '{"seed": -1}', '{"seed": 1e3}', '{"steps": 0}',
            '{"guidance_scale": NaN}', '{"prompt": 1}', '{"prompt": "\\u0000"}', '{"prompt": "\\ud800"}',
            json.dumps({"caption": "x" * 2001}), json.dumps({"tags": ["x" * 101]}), json.dumps({"tags": [1]}),
            json.dumps({"name": "x" * 201}), json.dumps({"seed": 2**63}), "[" * 100_000,
        ],
    )  # fmt: skip
    def test_one_that_cannot_be_understood_keeps_its_picture_out(self, folder, say):
        add(folder, "bad.png", say=say)
        add(folder, "good.png", color="blue")

        report = run(folder)

        assert [(file["path"], file["code"]) for file in report["refused"]] == [("bad.png", "bad_sidecar")]
        assert names() == ["good"]

        (folder / "bad.json").unlink()
        assert counts(run(folder)) == (2, 1, 1, 0)

    def test_a_text_that_is_no_text(self, folder):
        add(folder).with_suffix(".txt").write_bytes(b"\xff\xfe\x00")

        assert run(folder)["refused"][0]["code"] == "bad_sidecar"

    def test_a_caption_that_is_too_long_for_a_text(self, folder):
        add(folder, txt="x" * 2001)

        assert run(folder)["refused"][0]["code"] == "bad_sidecar"


def test_pictures_are_found_as_people_count_them(folder):
    for name in ("card 10.png", "card 2.png", "Z.jpg", "b/1.webp", "a/1.PNG", "a/notes.txt"):
        add(folder, name)

    found = [path.relative_to(folder).as_posix() for path in find_pictures(folder)]

    assert found == ["Z.jpg", "card 2.png", "card 10.png", "a/1.PNG", "b/1.webp"]
    assert LabelKind.CAPTION == "caption"
