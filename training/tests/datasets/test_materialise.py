import os

import pytest

from imagehub import storage
from imagehub.accounts.tests.factories import UserFactory
from training.datasets.manifest import Manifest
from training.models import DatasetImage
from training.services.datasets import DatasetIncomplete, materialise, snapshot
from training.tests.datasets.albums import FEW, RECIPE, captioned_album
from training.trainer.assignment import RunFolder

pytestmark = pytest.mark.django_db


@pytest.fixture
def dataset(set_config, anywhere):
    set_config(FEW)
    return snapshot([captioned_album(4)], RECIPE, UserFactory())


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "training" / "runs" / "one")


def test_the_pictures_lie_where_the_manifest_says(dataset, folder):
    materialise(dataset, folder)

    manifest = Manifest.read(folder.manifest)
    assert manifest.digest() == dataset.sha256
    assert {entry.sha256 for entry in manifest.entries} == {path.name for path in folder.images.iterdir()}
    for row in dataset.images.all():
        with storage.open_file(row.storage_name) as file:
            assert (folder.images / row.sha256).read_bytes() == file.read()


def test_it_goes_on_where_it_was_interrupted(dataset, folder):
    class Interruption(Exception):
        pass

    def interrupt(done, total):
        if done == 2:
            raise Interruption

    with pytest.raises(Interruption):
        materialise(dataset, folder, on_progress=interrupt)
    assert not folder.manifest.exists()
    there = {path.name: path.stat().st_ino for path in folder.images.iterdir()}
    (folder.images / f"{next(iter(there))}x").with_suffix(".part").write_bytes(b"half")

    seen = []
    materialise(dataset, folder, on_progress=lambda done, total: seen.append((done, total)))

    assert len(there) == 2
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert there.items() <= {path.name: path.stat().st_ino for path in folder.images.iterdir()}.items()


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_picture_that_is_not_there_as_it_was_is_told(dataset, folder, damage):
    row = dataset.images.first()
    storage.delete(row.storage_name)
    if damage == "changed":
        storage.write_file(row.storage_name, b"something else")

    with pytest.raises(DatasetIncomplete, match="1 of 4 pictures"):
        materialise(dataset, folder)

    assert not folder.manifest.exists()
    assert not (folder.images / row.sha256).exists()


def test_rows_that_were_changed_are_no_data_set_any_more(dataset, folder):
    DatasetImage.objects.filter(dataset=dataset, position=0).update(caption="something else")

    with pytest.raises(DatasetIncomplete):
        materialise(dataset, folder)


def test_where_links_are_possible_nothing_is_copied(set_config, folder):
    set_config(FEW)
    dataset = snapshot([captioned_album(3)], RECIPE, UserFactory())

    materialise(dataset, folder)

    row = dataset.images.first()
    assert (folder.images / row.sha256).samefile(storage.path_of(row.storage_name))


def test_where_they_are_not_it_is_copied(set_config, folder, monkeypatch):
    def refuse(*_):
        raise OSError("Invalid cross-device link")

    set_config(FEW)
    dataset = snapshot([captioned_album(3)], RECIPE, UserFactory())
    monkeypatch.setattr(os, "link", refuse)

    materialise(dataset, folder)

    row = dataset.images.first()
    copy, original = folder.images / row.sha256, storage.path_of(row.storage_name)
    assert not copy.samefile(original)
    assert copy.read_bytes() == original.read_bytes()
