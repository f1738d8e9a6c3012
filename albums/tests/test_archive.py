import os
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from datetime import UTC, datetime
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.core.signals import request_finished
from django.db import close_old_connections

from albums.api.archives import DownloadTookTooLong
from albums.models import Image
from albums.services import archive as archives
from albums.services import refresh_summaries
from albums.services.archive import Archive, archive_album
from albums.tests.clients import client_of
from albums.tests.factories import AlbumFactory, ImageFactory, picture
from imagehub import storage
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db

RED, BLUE = picture(), picture(color="blue")


def packed(album, images=None):
    """Return the whole archive of an album, once it is seen that it is as long as it said."""
    archive = archive_album(album, Image.objects.live() if images is None else images)
    data = b"".join(archive)
    archive.close()
    assert len(data) == archive.size_bytes
    return data


def opened(data):
    file = zipfile.ZipFile(BytesIO(data))
    assert file.testzip() is None
    return file


def names(data):
    return opened(data).namelist()


class TestArchive:
    def test_holds_the_images_of_an_album_in_its_order(self):
        first = ImageFactory(name="a red heart", created_at=datetime(2026, 3, 1, 12, 30, 10, tzinfo=UTC))
        second = ImageFactory(name="a blue heart.png", content=BLUE)
        album = AlbumFactory(images=[second, first])

        file = opened(packed(album))

        assert file.namelist() == ["001 a blue heart.png", "002 a red heart.png"]
        assert [file.read(name) for name in file.namelist()] == [BLUE, RED]
        assert file.getinfo("002 a red heart.png").date_time == (2026, 3, 1, 12, 30, 10)
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}

    def test_is_the_same_each_time(self):
        album = AlbumFactory(images=ImageFactory.create_batch(3))

        assert packed(album) == packed(album)

    def test_of_an_empty_album_is_empty(self):
        assert names(packed(AlbumFactory())) == []

    def test_is_one_for_other_programs_too(self, tmp_path):
        album = AlbumFactory(images=[ImageFactory(name="Ünïcödé 猫"), ImageFactory()])
        (tmp_path / "album.zip").write_bytes(packed(album))

        assert subprocess.run(["unzip", "-tqq", tmp_path / "album.zip"], check=False).returncode == 0

    @pytest.mark.parametrize("limits", [{"ZIP64_LIMIT": 250}, {"ZIP_FILECOUNT_LIMIT": 3}])
    def test_may_be_larger_than_the_first_zip_files_could(self, limits, monkeypatch):
        album = AlbumFactory(images=ImageFactory.create_batch(6))
        plain = packed(album)
        for name, value in limits.items():
            monkeypatch.setattr(archives, name, value)

        large = packed(album)

        assert b"PK\x06\x06" in large
        assert len(large) > len(plain)
        assert names(large) == names(plain)

    def test_says_its_length_before_it_opens_a_file(self, monkeypatch):
        album = AlbumFactory(images=ImageFactory.create_batch(3))
        length = len(packed(album))
        monkeypatch.setattr(storage, "open_file", None)

        assert archive_album(album, Image.objects.live()).size_bytes == length

    def test_is_what_the_album_was_when_it_was_asked_for(self):
        first, second = ImageFactory.create_batch(2)
        album = AlbumFactory(images=[first, second])
        archive = archive_album(album, Image.objects.live())

        Image.objects.filter(pk=first.pk).update(name="something much longer", size_bytes=7)
        album.delete()

        assert len(names(b"".join(archive))) == 2

    def test_costs_two_queries(self, django_assert_num_queries):
        album = AlbumFactory(images=ImageFactory.create_batch(5))

        with django_assert_num_queries(2):
            packed(album)

    def test_keeps_a_long_list_out_of_memory(self, monkeypatch):
        monkeypatch.setattr(archives, "LIST_IN_MEMORY_BYTES", 100)
        album = AlbumFactory(images=ImageFactory.create_batch(5))

        archive = archive_album(album, Image.objects.live())

        assert archive._entries._rolled
        assert len(names(b"".join(archive))) == 5

    def test_is_read_no_further_than_it_is_wanted(self, monkeypatch):
        content = os.urandom(3 * archives.CHUNK_BYTES)
        album = AlbumFactory(images=ImageFactory.create_batch(3, content=content))
        files = []
        open_file = storage.open_file
        monkeypatch.setattr(storage, "open_file", lambda name: files.append(open_file(name)) or files[-1])
        chunks = iter(archive_album(album, Image.objects.live()))

        assert len(next(chunks)) < 2 * archives.CHUNK_BYTES
        chunks.close()

        assert len(files) == 1
        assert files[0].closed


class TestDamage:
    @pytest.mark.parametrize("suffix", ["png", "webp"])
    @pytest.mark.parametrize("size", [10, 3 * archives.CHUNK_BYTES + 1])
    def test_a_text_stands_for_a_file_that_is_missing(self, suffix, size):
        gone = ImageFactory(name="gone", content=os.urandom(size), format=suffix)
        album = AlbumFactory(images=[gone, ImageFactory(name="here")])
        storage.delete(gone.storage_name)

        file = opened(packed(album))

        says = f"001 gone.{'text' if suffix == 'webp' else 'txt'}"
        assert file.namelist() == [says, "002 here.png"]
        assert file.read(says).strip() == archives.MISSING[:size].strip()
        assert file.read("002 here.png") == RED

    def test_and_for_one_of_another_size(self):
        image = ImageFactory(name="cut")
        storage.path_of(image.storage_name).write_bytes(RED[:-1])

        assert names(packed(AlbumFactory(images=[image]))) == ["001 cut.txt"]

    def test_and_for_one_outside_the_store(self):
        image = ImageFactory(name="passwd", storage_name="../../etc/passwd")

        data = packed(AlbumFactory(images=[image]))

        assert names(data) == ["001 passwd.txt"]
        assert b"root:" not in data


class TestNames:
    @pytest.mark.parametrize(
        ("name", "entry"),
        [
            ("../../a", "001 a.png"),
            ("/etc/passwd", "001 etc_passwd.png"),
            ("a/../b", "001 a_.._b.png"),
            ("..\\w.png", "001 w.png"),
            ("CON", "001 CON.png"),
            ("a:b*c?", "001 a_b_c.png"),
            ("...", "001.png"),
            ("a\x00b\u202egnp.exe", "001 a_b_gnp.exe.png"),
            ("e\N{COMBINING ACUTE ACCENT}", "001 \N{LATIN SMALL LETTER E WITH ACUTE}.png"),
            ("\N{CAT FACE}", "001 \N{CAT FACE}.png"),
            ("x" * 200, f"001 {'x' * 200}.png"),
            ("\N{CAT FACE}" * 200, f"001 {chr(0x1F431) * 50}.png"),
            ("name. ", "001 name.png"),
        ],
    )
    def test_are_safe_on_every_system(self, name, entry):
        assert archives._entry_name("001", name, "png") == entry
        assert len(entry.encode()) <= 255

    def test_are_marked_as_unicode(self):
        [info] = opened(packed(AlbumFactory(images=[ImageFactory(name="猫")]))).infolist()

        assert info.flag_bits & 0x800

    def test_of_equal_images_differ(self):
        album = AlbumFactory(images=ImageFactory.create_batch(3, name="heart"))

        assert names(packed(album)) == ["001 heart.png", "002 heart.png", "003 heart.png"]

    def test_stand_in_order_when_there_are_many(self, monkeypatch):
        monkeypatch.setattr(archives, "FEWEST_DIGITS", 1)
        album = AlbumFactory(images=ImageFactory.create_batch(10, name="heart"))

        assert names(packed(album))[::9] == ["01 heart.png", "10 heart.png"]

    def test_do_not_tell_how_many_are_left_out(self):
        album = AlbumFactory(images=[ImageFactory(name="heart")])
        album.total_images = 12_345

        assert names(packed(album)) == ["001 heart.png"]

    @pytest.mark.parametrize(("year", "written"), [(1970, 1980), (2200, 2107)])
    def test_and_times_are_those_that_a_zip_file_knows(self, year, written):
        image = ImageFactory(created_at=datetime(year, 5, 6, tzinfo=UTC))

        [info] = opened(packed(AlbumFactory(images=[image]))).infolist()

        assert info.date_time == (written, 5, 6, 0, 0, 0)


class TestDownload:
    @pytest.fixture
    def album(self):
        return AlbumFactory(
            public=True, name="Cards: 54/54", images=ImageFactory.create_batch(3, public=True)
        )

    @pytest.fixture
    def path(self, album):
        return f"/api/albums/{album.pk}/archive"

    def test_is_a_file_to_keep(self, visitor, path):
        response = visitor.get(path)

        data = response.getvalue()
        assert len(names(data)) == 3
        assert response.headers["Content-Type"] == "application/zip"
        assert response.headers["Content-Length"] == str(len(data))
        assert response.headers["Content-Disposition"] == 'attachment; filename="Cards_ 54_54.zip"'
        assert response.headers["Cache-Control"] == "private, no-store"

    def test_is_given_to_those_who_ask_for_nothing_else(self, visitor, path):
        assert visitor.get(path, headers={"Accept": "application/zip"}).status_code == 200

    def test_can_be_asked_about(self, visitor, path, set_config):
        set_config("storage: {minimum_free_bytes: 0, archives_at_once: 1}")
        length = visitor.get(path).getvalue()

        for _ in range(2):  # and holds nothing
            response = visitor.head(path)
            assert response.headers["Content-Length"] == str(len(length))
            assert response.content == b""

    def test_leaves_out_what_the_caller_may_not_see(self, visitor, staff):
        sorts = {"public": {}, "private": {"visibility": "private"}, "flagged": {"nsfw": "flagged"}}
        images = [
            ImageFactory(**{"name": name, "visibility": "public"} | fields) for name, fields in sorts.items()
        ]
        images.append(ImageFactory(name="deleted", public=True, deleted_at=datetime.now(UTC)))
        album = AlbumFactory(public=True, images=images)
        path = f"/api/albums/{album.pk}/archive"

        assert names(visitor.get(path).getvalue()) == ["001 public.png"]
        assert names(client_of(UserFactory()).get(path).getvalue()) == ["001 public.png"]
        assert names(staff.get(path).getvalue()) == ["001 public.png", "002 private.png", "003 flagged.png"]

    def test_of_a_private_album_does_not_exist_for_others(self, visitor, staff):
        path = f"/api/albums/{AlbumFactory().pk}/archive"

        assert visitor.get(path).status_code == 404
        assert staff.get(path).status_code == 200

    def leave(self, response):
        """Close a response that was not read, and keep the test's transaction, as Django's own test client does."""
        request_finished.disconnect(close_old_connections)
        response.close()
        request_finished.connect(close_old_connections)

    def test_is_refused_while_as_many_run_as_may(self, visitor, path, set_config):
        set_config("storage: {minimum_free_bytes: 0, archives_at_once: 2}")
        running = [visitor.get(path) for _ in range(2)]

        refused = visitor.get(path)

        assert (refused.status_code, refused.json()["code"]) == (429, "concurrency_limit")
        assert refused.headers["Retry-After"]
        assert running[0].getvalue()
        assert visitor.get(path).status_code == 200  # in its place
        self.leave(running[1])  # which was not begun
        assert visitor.get(path).status_code == 200

    def test_holds_nothing_when_it_cannot_be_made(self, staff, path, set_config, monkeypatch):
        set_config("storage: {minimum_free_bytes: 0, archives_at_once: 1}")
        with monkeypatch.context() as broken, pytest.raises(RuntimeError):
            broken.setattr(Archive, "_list", lambda *_: (_ for _ in ()).throw(RuntimeError))
            staff.get(path)

        assert staff.get(path).status_code == 200

    def test_ends_when_it_lasts_too_long(self, visitor, path, monkeypatch):
        monkeypatch.setattr("albums.api.archives.LONGEST_SECONDS", -1)

        with pytest.raises(DownloadTookTooLong):
            visitor.get(path).getvalue()


@pytest.mark.django_db(transaction=True)
class TestServer:
    """The server as it ships, which alone knows that a client has gone."""

    @pytest.fixture
    def album(self):
        content = os.urandom(8 << 20)
        image = ImageFactory(public=True, content=content)
        copies = [
            Image(
                **{
                    name: getattr(image, name)
                    for name in ("name", "visibility", "storage_name", "sha256", "size_bytes", "width")
                },
                height=8,
                format="png",
                source_kind="upload",
            )
            for _ in range(1000)
        ]
        album = AlbumFactory(public=True)
        Image.objects.bulk_create(copies)
        album.memberships.bulk_create(
            album.memberships.model(album=album, image=copy, position=position)
            for position, copy in enumerate(copies)
        )
        refresh_summaries([album.pk])
        return album

    @pytest.fixture
    def port(self, process_env, set_config):
        set_config("storage: {minimum_free_bytes: 0, archives_at_once: 1}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "imagehub.asgi:application", "--port", str(port)],
            env=process_env | {"IMAGEHUB_WEB_DOWNLOAD_SECONDS": "1"},
            cwd=django_settings.BASE_DIR,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health/live", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield port
        finally:
            process.terminate()
            process.wait(20)

    def begin(self, port, album):
        client = socket.create_connection(("127.0.0.1", port), timeout=20)
        client.sendall(f"GET /api/albums/{album.pk}/archive HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return client, client.recv(12).removeprefix(b"HTTP/1.1 ")

    def wait_until_one_is_free(self, port, album):
        for _ in range(50):
            client, status = self.begin(port, album)
            if status == b"200":
                return client
            assert status == b"429"
            client.close()
            time.sleep(0.1)
        pytest.fail("The download of a client that is not there goes on.")

    def test_breaks_off_a_download_that_nobody_takes(self, port, album):
        """All of it would be 8 GB: whoever read on after the client has gone would be at it for long."""
        first, status = self.begin(port, album)
        assert status == b"200"
        assert self.begin(port, album)[1] == b"429"
        first.close()

        second = self.wait_until_one_is_free(port, album)  # and this client only stops reading

        self.wait_until_one_is_free(port, album).close()
        second.close()


class TestExportAlbum:
    def export(self, album, **options):
        output = StringIO()
        call_command("export_album", str(album.pk), stdout=output, **options)
        return output.getvalue()

    def test_writes_the_archive(self, tmp_path):
        album = AlbumFactory(images=ImageFactory.create_batch(2))
        path = tmp_path / "cards.zip"

        said = self.export(album, output=path)

        assert path.read_bytes() == packed(album)
        assert said.startswith("2 images")
        assert sorted(file.name for file in tmp_path.iterdir() if "cards" in file.name) == ["cards.zip"]

    def test_names_it_after_the_album(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        album = AlbumFactory()

        self.export(album)

        assert Path(f"{album.pk}.zip").exists()

    def test_can_leave_out_what_is_not_for_everybody(self, tmp_path):
        images = [ImageFactory(public=True), ImageFactory(), ImageFactory(public=True, nsfw="flagged")]

        said = self.export(AlbumFactory(images=images), output=tmp_path / "a.zip", public=True)

        assert said.startswith("1 images")

    def test_replaces_nothing(self, tmp_path):
        path = tmp_path / "mine.zip"
        path.write_text("mine")

        with pytest.raises(CommandError, match="is there already"):
            self.export(AlbumFactory(), output=path)

        assert path.read_text() == "mine"

    def test_leaves_nothing_when_it_fails(self, tmp_path, monkeypatch):
        monkeypatch.setattr(
            Archive, "__iter__", lambda _: (_ for _ in ()).throw(OSError(28, "No space left"))
        )

        with pytest.raises(CommandError, match="No space left"):
            self.export(AlbumFactory(), output=tmp_path / "a.zip")

        assert list(tmp_path.glob("*a.zip*")) == []

    def test_says_so_when_there_is_no_such_album(self):
        with pytest.raises(CommandError, match="There is no album"):
            self.export(AlbumFactory.build())
