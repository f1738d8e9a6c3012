"""Uploads at the same time, and uploads of a process that is killed: no row without its file, no file for ever."""

import json
import os
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from albums import consistency, tasks
from albums.models import AlbumImage, Image, ImageText
from albums.services.folders import ImportReport, find_pictures, import_pictures
from albums.tests.factories import AlbumFactory, picture, stored_files
from imagehub import storage
from imagehub.accounts.tests.factories import UserFactory
from imagehub.tests.together import at_once

pytestmark = pytest.mark.django_db(transaction=True)

CALLS = 20

NO_LIMITS = (
    "{storage: {minimum_free_bytes: 0}, uploads: {at_once: 0},"
    " rate_limits: {upload: {limit: 0, window_seconds: 60}}}"
)


@pytest.fixture(autouse=True)
def _no_limits(set_config):
    set_config(NO_LIMITS)


@pytest.fixture
def send():
    owner = UserFactory(staff=True)

    def upload(content, **fields):
        client = APIClient()
        client.force_authenticate(owner)
        sent = SimpleUploadedFile("heart.png", content, "image/png")
        return client.post("/api/images/upload", {"files": [sent], **fields}, format="multipart")

    return upload


def test_the_same_bytes_under_the_same_name_from_twenty_at_once(send):  # U27
    responses = at_once(send, [picture()] * CALLS)

    assert [response.status_code for response in responses] == [201] * CALLS
    assert Image.objects.count() == CALLS
    assert len(stored_files()) == 1
    assert consistency.check().is_clean


def test_different_pictures_under_the_same_name_into_one_album(send):  # U28
    album = AlbumFactory()
    contents = [picture(color=(number, 0, 0)) for number in range(8)]

    responses = at_once(lambda content: send(content, album=str(album.pk)), contents)

    assert [response.status_code for response in responses] == [201] * len(contents)
    assert len(stored_files()) == len(contents)
    assert sorted(album.memberships.values_list("position", flat=True)) == list(range(len(contents)))
    album.refresh_from_db()
    assert album.total_images == len(contents)


def test_two_imports_of_one_folder_into_one_album(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(picture(color=(number, 0, 0)))
        (folder / f"{number}.txt").write_text(f"number {number}")
    album = AlbumFactory()

    def run(report):
        import_pictures(folder, find_pictures(folder), album=album, visibility="private", report=report)
        return report

    reports = at_once(run, [ImportReport(), ImportReport()])

    assert sum(report.imported for report in reports) == 6
    assert sum(report.already_there for report in reports) == 6
    assert album.memberships.count() == Image.objects.count() == 6


KILLED_UPLOAD = """
import json, os, signal, sys
import django
django.setup()
from pathlib import Path
from django.db import connection
from albums.models import Album, Image
from albums.services import images, uploads

def dies(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def after(function):
    def wrapper(*args, **options):
        function(*args, **options)
        dies()
    return wrapper

POINTS = {
    "before it is vetted": lambda: setattr(uploads, "vet", dies),
    "after it was vetted": lambda: setattr(uploads, "vet", after(uploads.vet)),
    "after the file was stored": lambda: setattr(uploads.storage, "adopt_file", after(uploads.storage.adopt_file)),
    "after the thumbnail was stored": lambda: setattr(uploads.storage, "write_file", after(uploads.storage.write_file)),
    "after the row was written": lambda: setattr(images, "index_new_images", dies),
    "before the transaction ends": lambda: setattr(images, "add_images_to_album", after(images.add_images_to_album)),
    "before thumbnails are asked for": lambda: setattr(uploads, "save_images", after(uploads.save_images)),
    "after the transaction": lambda: setattr(uploads, "take_in_pictures", after(uploads.take_in_pictures)),
}

album, content = Album.objects.get(), Path(sys.argv[1]).read_bytes()
connection.close()
told = {}
for point, arm in POINTS.items():
    child = os.fork()
    if not child:
        arm()
        with uploads.quarantine() as folder:
            incoming = uploads.IncomingFile(folder / "0000", "heart.png")
            incoming.path.write_bytes(content)
            new = lambda file: Image(source_kind="upload")
            uploads.take_in_pictures([incoming], staging=folder, new_image=new, album=album)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    told[point] = [os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, Image.objects.count()]
    connection.close()
print(json.dumps(told))
"""


def test_whatever_kills_an_upload_leaves_no_row_without_a_file_and_nothing_for_ever(process_env, tmp_path):
    content = tmp_path / "heart.png"
    content.write_bytes(picture(size=(700, 700)))
    AlbumFactory()

    output = subprocess.run(
        [sys.executable, "-c", KILLED_UPLOAD, str(content)],
        env=process_env | {"DJANGO_SETTINGS_MODULE": "imagehub.settings"},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    told = json.loads(output.splitlines()[-1])
    assert {signal for signal, _ in told.values()} == {9}
    assert [rows for _, rows in told.values()] == [0, 0, 0, 0, 0, 0, 0, 1]
    assert Image.objects.count() == ImageText.objects.count() == AlbumImage.objects.count() == 1
    report = consistency.check()
    assert report.rows_without_files == []
    assert stored_files() == [Image.objects.get().storage_name]  # of equal bytes, so of the others too
    assert len(list(storage.path_of("staging").iterdir())) == len(told)

    # Time passes, and the image is deleted.
    Image.objects.all().delete()
    then = time.time() - timedelta(days=3).total_seconds()
    for path in storage.root().rglob("*"):
        os.utime(path, (then, then))
    tasks.sweep_store()

    assert stored_files() == []
    assert list(storage.walk("thumbnails")) == []
    assert list(storage.path_of("staging").iterdir()) == []
