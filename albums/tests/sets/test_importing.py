import json
import os
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from albums.models import Album
from albums.set_templates.importing import MAX_BYTES
from albums.tests.factories import AlbumFactory
from albums.tests.sets.folders import CARDS, entry, outcomes, reasons, run
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


class TestImport:
    def test_makes_an_album_of_everything_the_file_says(self, cards):
        assert outcomes(cards) == {"card_deck": "created"}

        album = Album.objects.get()
        assert (album.name, album.description, album.kind) == ("Card deck", "Three cards.", "set")
        assert album.is_set_template
        assert (album.base_prompt, album.prompt_template) == ("a playing card", "{value} of {suit}")
        assert (album.style_suffix, album.example_theme) == ("clean edges", "woodcut")
        assert (album.negative_prompt, album.width, album.height) == ("text", 512, 720)
        assert album.set_rows == [
            {"value": "Ace", "suit": "Hearts"},
            {"value": "King", "suit": "Spades"},
            {"value": "Ten", "suit": "Clubs"},
        ]
        assert (album.visibility, album.owner, album.set_key) == ("private", None, "card_deck")

    def test_again_changes_nothing(self, cards):
        run(cards)
        before = Album.objects.values().get()

        assert outcomes(cards) == {"card_deck": "unchanged"}
        assert Album.objects.values().get() == before
        assert AuditEntry.objects.filter(action="album.import_set").count() == 1

    def test_refreshes_what_the_file_says_and_leaves_the_rest(self, cards):
        run(cards)
        Album.objects.update(visibility="public", loras=[{"id": "7", "weight": 0.5}], base_prompt="mine")
        (cards / "card_deck.csv").write_text("value,suit\nAce,Hearts\n")

        item = run(cards)["card_deck"]

        assert (item.outcome, set(item.changed)) == ("updated", {"base_prompt", "set_rows"})
        album = Album.objects.get()
        assert (album.visibility, album.loras, album.base_prompt) == (
            "public",
            [{"id": "7", "weight": 0.5}],
            "a playing card",
        )
        assert album.set_rows == [{"value": "Ace", "suit": "Hearts"}]

    def test_sees_that_columns_have_changed_places(self, cards):
        run(cards)
        (cards / "card_deck.csv").write_text("suit,value\nHearts,Ace\nSpades,King\nClubs,Ten\n")

        assert run(cards)["card_deck"].changed == ["set_rows"]
        assert list(Album.objects.get().set_rows[0]) == ["suit", "value"]

    def test_a_dry_run_says_the_same_and_writes_nothing(self, cards):
        assert outcomes(cards, dry_run=True) == {"card_deck": "created"}
        assert not Album.objects.exists()
        run(cards)
        (cards / "card_deck.csv").write_text("value,suit\nAce,Hearts\n")

        assert outcomes(cards, dry_run=True) == {"card_deck": "updated"}
        assert len(Album.objects.get().set_rows) == 3
        assert AuditEntry.objects.count() == 1

    def test_gives_new_albums_an_owner_and_takes_old_ones_from_nobody(self, cards):
        ada, eve = UserFactory(), UserFactory()
        run(cards, owner=ada)
        run(cards, owner=eve)

        assert Album.objects.get().owner == ada

    def test_another_album_of_the_same_name_is_left_alone(self, cards):
        other = AlbumFactory(name="Card deck")

        run(cards)

        other.refresh_from_db()
        assert (Album.objects.count(), other.is_set_template) == (2, False)

    def test_a_broken_set_keeps_no_other_from_coming_in(self, cards):
        (cards / "config.yaml").write_text(CARDS + "\nbroken: {prompt_template: '{sign}'}\n" + "worse: 7\n")
        (cards / "broken.csv").write_text("card\nThe Fool\n")

        results = run(cards)

        assert {key: item.outcome for key, item in results.items()} == {
            "card_deck": "created",
            "broken": "failed",
            "worse": "failed",
        }
        assert "/prompt_template: There is no column “sign”" in results["broken"].reasons[0]
        assert Album.objects.count() == 1

    def test_a_set_that_has_become_broken_stays_as_it_was(self, cards):
        run(cards)
        (cards / "card_deck.csv").write_text("value,suit\nAce\n")

        [reason] = reasons(cards)

        assert reason.startswith("/set_rows/0: ")
        assert len(Album.objects.get().set_rows) == 3

    def test_sets_without_rows_are_skipped(self, folder):
        entry(folder)
        (folder / "tarot.csv").write_text("card\n")
        assert outcomes(folder) == {"tarot": "skipped"}
        (folder / "tarot.csv").unlink()
        [item] = run(folder).values()
        assert (item.outcome, item.reasons) == ("skipped", ["There is no file of rows (tarot.csv)."])

    def test_but_a_file_that_is_named_has_to_be_there(self, folder):
        entry(folder, csv_path="elsewhere.csv")

        assert reasons(folder) == ["/csv_path: There is no such file."]

    def test_two_at_once_make_one_album(self, cards, monkeypatch):
        run(cards)
        monkeypatch.setattr(
            "albums.set_templates.importing.Album.objects.select_for_update", Album.objects.none
        )

        assert reasons(cards) == ["Somebody else has imported a set of this key at the same time."]
        assert Album.objects.count() == 1


class TestFolder:
    @pytest.mark.parametrize(
        "path", ["../secret.csv", "/etc/passwd", "inner/../../secret.csv", "link.csv", "linked/secret.csv"]
    )
    def test_nothing_outside_of_it_is_read(self, folder, tmp_path, path):
        (tmp_path / "secret.csv").write_text("card\nThe Fool\n")
        (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
        (folder / "linked").symlink_to(tmp_path)
        (folder / "inner").mkdir()
        entry(folder, csv_path=path)

        result = run(folder)["tarot"]

        assert result.reasons == ["/csv_path: The file lies outside of the folder."]

    @pytest.mark.parametrize("key", ["../secret", "/etc/passwd", "link"])
    def test_nor_through_a_key(self, folder, tmp_path, key):
        (tmp_path / "secret.csv").write_text("card\nThe Fool\n")
        (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
        (folder / "config.yaml").write_text(json.dumps({key: {"prompt_template": "{card}"}}))

        run(folder)

        assert not Album.objects.exists()

    def test_nor_when_a_link_is_found_without_an_entry(self, folder, tmp_path):
        (tmp_path / "secret.csv").write_text("card\nThe Fool\n")
        (folder / "link.csv").symlink_to(tmp_path / "secret.csv")

        assert outcomes(folder) == {"link": "failed"}

    @pytest.mark.parametrize("name", ["x" * 300, "a\x00b", "loop", "inner", "pipe"])
    def test_names_that_lead_nowhere(self, folder, name):
        (folder / "loop").symlink_to(folder / "loop")
        (folder / "inner").mkdir()
        os.mkfifo(folder / "pipe")
        entry(folder, csv_path=name)

        [item] = run(folder).values()

        assert item.outcome == "failed"

    def test_a_file_of_rows_may_not_be_too_large(self, folder):
        (folder / "tarot.csv").write_bytes(b"card\n" + b"x" * MAX_BYTES)
        entry(folder)

        assert reasons(folder) == [f"/csv_path: The file has more than {MAX_BYTES} bytes."]

    @pytest.mark.parametrize(
        ("index", "complaint"),
        [
            ("a: {name: x}\na: {name: y}\n", "duplicate key"),
            ("a: &x {name: x}\nb: *x\n", "aliases"),
            ("a: [", "not valid YAML"),
            ("- a\n", "mapping"),
            ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
            ("x" * (MAX_BYTES + 1), "bytes"),
        ],
    )
    def test_an_index_that_is_no_good_ends_it(self, cards, index, complaint):
        (cards / "config.yaml").write_text(index)

        with pytest.raises(CommandError, match=complaint):
            call_command("import_sets", str(cards), stdout=StringIO())
        assert not Album.objects.exists()

    def test_an_empty_one_and_none_at_all(self, folder):
        for path in (folder, folder / "nothing"):
            with pytest.raises(CommandError):
                call_command("import_sets", str(path))

    @pytest.mark.parametrize("key", [7, "", "x" * 101, "a\nb", None])
    def test_keys_that_are_none(self, folder, key):
        (folder / "config.yaml").write_text(
            json.dumps([[key, {}]]).replace("[[", "{? ").replace("]]", "}").replace(", {", ": {")
        )

        assert set(outcomes(folder).values()) == {"failed"}
