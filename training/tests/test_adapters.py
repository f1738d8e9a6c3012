"""Adapters come in once, are found, and go only when nobody uses them."""

import hashlib
import os
import shutil
import threading
import time
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import connections
from django.utils import timezone

from albums.models import ImageLora
from albums.tests.factories import ImageFactory
from imagehub.accounts.models import AuditEntry
from imagehub.errors import Invalid
from imagehub.in_use import InUse
from imagehub.roots import models_root
from imagehub.storage import StorageFull
from training import services
from training.models import Adapter
from training.services import (
    AdapterMissing,
    AdapterRefused,
    import_adapter,
    locate_adapter,
    scan_adapters,
    scanning,
)
from training.services import adapters as adapters_module
from training.tests.factories import AdapterFactory
from training.tests.weight_headers import write_header, write_sd1_adapter

pytestmark = pytest.mark.django_db


def incoming(tmp_path, name="zwx.safetensors", **options):
    return write_sd1_adapter(tmp_path / "incoming" / name, **options)


def stored():
    folder = models_root() / "adapters"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


class TestImport:
    def test_the_file_gets_the_name_of_its_content_and_the_row_what_it_says(self, tmp_path):
        file = incoming(tmp_path, metadata={"modelspec.trigger_phrase": "zwx"})
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()

        adapter, is_new = import_adapter(file)

        assert (is_new, file.exists(), stored()) == (True, False, [f"{sha256}.safetensors"])
        assert (adapter.name, adapter.sha256, adapter.source) == (
            "zwx",
            sha256,
            f"adapters/{sha256}.safetensors",
        )
        assert (adapter.architecture, adapter.layout, adapter.rank, adapter.alpha) == ("sd1", "kohya", 4, 2.0)
        assert (adapter.targets, adapter.trigger_words) == ({"unet": 2}, ["zwx"])
        assert locate_adapter(adapter).stat().st_mode & 0o777 == 0o644

    def test_the_same_bytes_are_the_same_row_and_keep_their_name(self, tmp_path):
        first, _ = import_adapter(incoming(tmp_path), name="first")

        again, is_new = import_adapter(incoming(tmp_path, "other.safetensors"), name="second")

        assert (again.pk, again.name, is_new) == (first.pk, "first", False)
        assert (Adapter.objects.count(), len(stored())) == (1, 1)

    def test_a_file_that_was_lost_comes_back_with_the_same_bytes(self, tmp_path):
        adapter, _ = import_adapter(incoming(tmp_path))
        locate_adapter(adapter).unlink()

        import_adapter(incoming(tmp_path))

        assert locate_adapter(adapter).is_file()

    @pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[::-1]])
    def test_a_file_that_was_damaged_comes_back_with_the_same_bytes(self, tmp_path, damage):
        adapter, _ = import_adapter(incoming(tmp_path))
        path = locate_adapter(adapter)
        path.write_bytes(damage(path.read_bytes()))

        _, is_new = import_adapter(incoming(tmp_path))

        assert not is_new
        assert hashlib.sha256(locate_adapter(adapter).read_bytes()).hexdigest() == adapter.sha256

    def test_what_operators_lost_comes_back_to_a_place_of_our_own(self, tmp_path):
        adapter = AdapterFactory(on_disk=True)
        content = locate_adapter(adapter).read_bytes()
        locate_adapter(adapter).write_bytes(b"something else")
        (tmp_path / "again.safetensors").write_bytes(content)

        again, is_new = import_adapter(tmp_path / "again.safetensors")

        adapter.refresh_from_db()
        assert (again.pk, is_new) == (adapter.pk, False)
        assert adapter.source == again.source == f"adapters/{adapter.sha256}.safetensors"
        assert locate_adapter(adapter).read_bytes() == content
        entry = AuditEntry.objects.get(action="adapter.restore")
        assert entry.before["source"].startswith("loras/")

    def test_the_name_is_what_was_said_then_what_the_header_says_then_the_files(self, tmp_path):
        titled = {"modelspec.title": "Ink"}

        said, _ = import_adapter(incoming(tmp_path, mark=1, metadata=titled), name="Mine")
        by_header, _ = import_adapter(incoming(tmp_path, mark=2, metadata=titled), file_name="b.safetensors")
        by_file, _ = import_adapter(incoming(tmp_path, mark=3), file_name="b.safetensors")

        assert [said.name, by_header.name, by_file.name] == ["Mine", "Ink", "b"]

    @pytest.mark.parametrize(
        ("shapes", "code"),
        [({"x": (1,)}, "no_adapter"), ({"lora_unet_x.hada_w1_a": (1, 1)}, "unsupported_adapter")],
    )
    def test_what_is_refused_leaves_nothing(self, tmp_path, shapes, code):
        file = write_header(tmp_path / "a.safetensors", shapes)

        with pytest.raises(AdapterRefused) as refusal:
            import_adapter(file)

        assert (refusal.value.code, refusal.value.pointer) == (code, "/file")
        assert (Adapter.objects.count(), stored()) == (0, [])

    def test_a_value_out_of_range_leaves_nothing(self, tmp_path):
        with pytest.raises(ValidationError):
            import_adapter(incoming(tmp_path), trigger_words={"no list"})

        assert (Adapter.objects.count(), stored()) == (0, [])

    def test_a_full_disk_leaves_nothing(self, tmp_path, set_config):
        set_config("storage: {minimum_free_bytes: 1000000000000000}")

        with pytest.raises(StorageFull, match="models files is full"):
            import_adapter(incoming(tmp_path))

        assert (Adapter.objects.count(), stored()) == (0, [])

    def test_it_is_copied_from_another_disk(self, tmp_path, monkeypatch):
        def not_across_disks(self, target):
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(adapters_module.Path, "rename", not_across_disks)

        adapter, _ = import_adapter(incoming(tmp_path))

        assert hashlib.sha256(locate_adapter(adapter).read_bytes()).hexdigest() == adapter.sha256
        assert len(stored()) == 1

    def test_a_death_while_the_file_is_moved_leaves_no_file_of_that_name(self, tmp_path, monkeypatch):
        def die(descriptor):
            raise KeyboardInterrupt

        monkeypatch.setattr(adapters_module.os, "fsync", die)
        with pytest.raises(KeyboardInterrupt):
            import_adapter(incoming(tmp_path))

        assert stored() == []


@pytest.mark.django_db(transaction=True)
def test_of_ten_who_import_the_same_bytes_one_makes_the_row_and_the_file(tmp_path):
    files = [incoming(tmp_path, f"{number}.safetensors", mark="same") for number in range(10)]
    barrier = threading.Barrier(10)
    results, errors = [], []

    def take_in(file):
        try:
            barrier.wait()
            results.append(import_adapter(file))
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=take_in, args=[file]) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert len({adapter.pk for adapter, _ in results}) == 1
    assert sum(is_new for _, is_new in results) == 1
    assert (Adapter.objects.count(), len(stored())) == (1, 1)
    assert not any(file.exists() for file in files)


class TestLocate:
    def test_a_file_that_is_gone_or_another_one_is_missing(self, tmp_path):
        adapter, _ = import_adapter(incoming(tmp_path))
        path = locate_adapter(adapter)

        path.write_bytes(path.read_bytes() + b"more")
        with pytest.raises(AdapterMissing, match="has changed"):
            locate_adapter(adapter)
        path.unlink()
        with pytest.raises(AdapterMissing, match="not on this machine") as missing:
            locate_adapter(adapter)
        assert str(models_root()) not in str(missing.value)

    @pytest.mark.parametrize(
        "source", ["../outside.safetensors", "/etc/passwd", "link.safetensors", "", "a\0b"]
    )
    def test_nothing_outside_the_models_root_is_found(self, tmp_path, source):
        models_root().mkdir(parents=True, exist_ok=True)
        outside = write_sd1_adapter(models_root().parent / "outside.safetensors")
        (models_root() / "link.safetensors").symlink_to(outside)

        with pytest.raises(AdapterMissing):
            locate_adapter(Adapter(name="a", source=source, size_bytes=outside.stat().st_size))


class TestDelete:
    def test_the_row_and_the_imported_file_go(self, tmp_path, django_capture_on_commit_callbacks):
        adapter, _ = import_adapter(incoming(tmp_path))

        with django_capture_on_commit_callbacks(execute=True):
            services.delete_adapter(adapter)

        assert (Adapter.objects.count(), stored()) == (0, [])

    def test_a_file_that_was_imported_again_meanwhile_stays(
        self, tmp_path, django_capture_on_commit_callbacks
    ):
        adapter, _ = import_adapter(incoming(tmp_path))

        with django_capture_on_commit_callbacks(execute=True):
            services.delete_adapter(adapter)
            again, is_new = import_adapter(incoming(tmp_path))

        assert is_new
        assert locate_adapter(again).is_file()

    def test_files_that_operators_keep_stay(self, django_capture_on_commit_callbacks):
        adapter = AdapterFactory(on_disk=True)

        with django_capture_on_commit_callbacks(execute=True):
            services.delete_adapter(adapter)

        assert (models_root() / adapter.source).is_file()

    def test_an_image_keeps_it_even_in_the_trash(self):
        adapter = AdapterFactory()
        image = ImageFactory(deleted_at=timezone.now())
        ImageLora.objects.create(image=image, lora_id=str(adapter.pk))

        with pytest.raises(InUse, match="Images were made with it"):
            services.delete_adapter(adapter)


class TestChange:
    def test_only_what_people_may_change_is_changed(self):
        adapter = AdapterFactory()

        changed = services.update_adapter(adapter, name="Ink", trigger_words=["zwx"], is_enabled=False)

        assert (changed.name, changed.trigger_words, changed.is_enabled) == ("Ink", ["zwx"], False)
        with pytest.raises(TypeError):
            services.update_adapter(adapter, source="elsewhere")
        with pytest.raises(ValidationError):
            services.update_adapter(adapter, default_weight=3.0)

    def test_what_was_deleted_meanwhile_is_said_to_be_gone(self):
        adapter = AdapterFactory()
        Adapter.objects.all().delete()

        with pytest.raises(services.AdapterGone):
            services.update_adapter(adapter, name="Ink")

    def test_an_image_in_the_trash_shows_nothing(self):
        image = ImageFactory(deleted_at=timezone.now())

        with pytest.raises(Invalid):
            services.set_adapter_preview(AdapterFactory(), image)


# ---- Scanning ----


def put(name, **options):
    return write_sd1_adapter(models_root() / "loras" / name, **options)


def scan(**options):
    return {outcome.path: outcome for outcome in scan_adapters(**options)}


def told(**options):
    return {path: outcome.outcome for path, outcome in scan(**options).items()}


class TestScan:
    def test_files_below_loras_get_rows_and_only_once(self):
        put("a.safetensors", mark=1)
        put("ink/b.safetensors", mark=2)
        (models_root() / "loras" / "notes.txt").write_text("hello")

        first, second = told(), told()

        assert first == {"loras/a.safetensors": "added", "loras/ink/b.safetensors": "added"}
        assert second == dict.fromkeys(first, "unchanged")
        assert set(Adapter.objects.values_list("name", "source")) == {
            ("a", "loras/a.safetensors"),
            ("b", "loras/ink/b.safetensors"),
        }

    def test_a_dry_run_changes_nothing(self):
        put("a.safetensors")
        gone = AdapterFactory(source="loras/gone.safetensors")

        assert told(dry_run=True) == {"loras/a.safetensors": "added", "loras/gone.safetensors": "vanished"}
        assert list(Adapter.objects.values_list("pk", "is_enabled")) == [(gone.pk, True)]

    def test_a_file_that_has_gone_disables_its_row_with_a_reason(self):
        path = put("a.safetensors")
        told()
        path.unlink()

        outcome = scan()["loras/a.safetensors"]

        assert (outcome.outcome, Adapter.objects.get().is_enabled) == ("vanished", False)
        assert "not on this machine" in outcome.detail
        assert told() == {}

    def test_the_same_bytes_under_two_names_are_one_adapter(self):
        put("a.safetensors")
        shutil.copy(models_root() / "loras" / "a.safetensors", models_root() / "loras" / "b.safetensors")

        assert told() == {"loras/a.safetensors": "added", "loras/b.safetensors": "duplicate"}

    def test_each_refusal_has_its_reason_and_hinders_no_other(self):
        write_header(models_root() / "loras" / "a.safetensors", {"lora_unet_x.hada_w1_a": (1, 1)})
        (models_root() / "loras" / "b.safetensors").write_bytes(b"damaged")
        put("c.safetensors")
        (models_root() / "loras" / "d.safetensors").symlink_to(models_root() / "loras" / "c.safetensors")

        outcomes = scan()

        assert {path: outcome.outcome for path, outcome in outcomes.items()} == {
            "loras/a.safetensors": "refused",
            "loras/b.safetensors": "refused",
            "loras/c.safetensors": "added",
        }
        assert "LoHa" in outcomes["loras/a.safetensors"].detail

    def test_a_file_that_has_changed_is_looked_at_again(self):
        put("a.safetensors", rank=4)
        told()
        put("a.safetensors", rank=8)

        assert told() == {"loras/a.safetensors": "changed"}
        assert Adapter.objects.get().rank == 8

    def test_a_changed_file_does_not_pass_for_the_one_that_images_were_made_with(self):
        put("a.safetensors", rank=4)
        told()
        row = Adapter.objects.get()
        ImageLora.objects.create(image=ImageFactory(), lora_id=str(row.pk))
        put("a.safetensors", rank=8)

        outcome = scan()["loras/a.safetensors"]

        row.refresh_from_db()
        assert (outcome.outcome, row.rank, row.is_enabled) == ("changed", 4, False)
        assert "another name" in outcome.detail

    def test_a_row_follows_a_file_that_moves(self):
        path = put("a.safetensors")
        told()
        row = Adapter.objects.get()
        (path.parent / "ink").mkdir()
        path.rename(path.parent / "ink" / "b.safetensors")

        assert told(dry_run=True) == {"loras/ink/b.safetensors": "moved"}
        assert told() == {"loras/ink/b.safetensors": "moved"}
        assert told() == {"loras/ink/b.safetensors": "unchanged"}

        moved = Adapter.objects.get()
        assert (moved.pk, moved.source, moved.is_enabled) == (row.pk, "loras/ink/b.safetensors", True)
        assert locate_adapter(moved).is_file()

    def test_a_row_that_pictures_name_follows_its_file_though_another_takes_its_place(self):
        path = put("a.safetensors", rank=4)
        told()
        row = Adapter.objects.get()
        ImageLora.objects.create(image=ImageFactory(), lora_id=str(row.pk))
        path.rename(path.parent / "b.safetensors")
        put("a.safetensors", rank=8)

        expected = {"loras/a.safetensors": "added", "loras/b.safetensors": "moved"}
        assert told(dry_run=True) == expected
        assert told() == expected

        assert set(Adapter.objects.enabled().values_list("source", "rank")) == {
            ("loras/a.safetensors", 8),
            ("loras/b.safetensors", 4),
        }
        assert Adapter.objects.get(rank=4).pk == row.pk

    def test_two_files_that_change_places_take_their_rows_along(self):
        one, two = put("a.safetensors", rank=4), put("b.safetensors", rank=8)
        told()
        rows = {row.rank: row.pk for row in Adapter.objects.all()}
        one.rename(one.parent / "c")
        two.rename(one)
        (one.parent / "c").rename(two)

        assert told()["loras/a.safetensors"] == "moved"

        for rank, source in ((8, "loras/a.safetensors"), (4, "loras/b.safetensors")):
            row = Adapter.objects.enabled().get(source=source)
            assert (row.rank, row.pk) == (rank, rows[rank])
        assert told() == dict.fromkeys(("loras/a.safetensors", "loras/b.safetensors"), "unchanged")

    def test_a_file_of_equal_size_and_an_older_date_is_noticed(self):
        path = put("a.safetensors", mark="1")
        told()
        before = path.stat()
        put("a.safetensors", mark="2")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - 10**12))
        assert path.stat().st_size == before.st_size

        assert told() == {"loras/a.safetensors": "changed"}
        assert Adapter.objects.get().sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_a_file_that_is_as_it_was_is_not_read_again(self, monkeypatch):
        path = put("a.safetensors")
        told()
        os.utime(path)  # other dates and the same bytes: read once more
        told()
        monkeypatch.setattr(scanning, "sha256_of", lambda path: pytest.fail("it was read"))

        assert told() == {"loras/a.safetensors": "unchanged"}

    def test_what_a_killed_import_left_is_swept_when_it_is_old(self, tmp_path):
        adapter, _ = import_adapter(incoming(tmp_path))
        folder = models_root() / "adapters"
        for name in (f"{'0' * 64}.safetensors", ".1.part", "fresh.part"):
            (folder / name).write_bytes(b"left over")
        old = time.time() - timedelta(days=2).total_seconds()
        for path in folder.iterdir():
            if path.name != "fresh.part":
                os.utime(path, (old, old))

        assert told() == {f"adapters/{'0' * 64}.safetensors": "swept", "adapters/.1.part": "swept"}
        assert stored() == sorted([f"{adapter.sha256}.safetensors", "fresh.part"])
