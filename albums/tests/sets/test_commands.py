import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from albums.models import Album
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


class TestImportSets:
    def run(self, *arguments):
        """Return what the command printed, and whether it failed."""
        output = StringIO()
        try:
            call_command("import_sets", *map(str, arguments), stdout=output)
        except CommandError:
            return output.getvalue(), True
        return output.getvalue(), False

    def test_says_what_it_did(self, cards):
        assert self.run(cards) == ("created    card_deck  Card deck, 3 rows\n1 created.\n", False)
        assert self.run(cards) == ("unchanged  card_deck  Card deck, 3 rows\n1 unchanged.\n", False)
        assert AuditEntry.objects.get().via == "command"

    def test_a_dry_run_says_that_it_is_one(self, cards):
        output, _ = self.run(cards, "--dry-run")

        assert "Nothing was written" in output
        assert not Album.objects.exists()

    def test_reports_as_json(self, cards):
        (cards / "other.csv").write_text("a,a\n")

        output, failed = self.run(cards, "--json")

        report = json.loads(output)
        assert failed
        assert (report["created"], report["failed"], report["dry_run"]) == (1, 1, False)
        assert [item["outcome"] for item in report["sets"]] == ["created", "failed"]
        assert report["sets"][0]["album"] == str(Album.objects.get().pk)
        assert str(cards) not in output

    def test_knows_the_owner_by_name(self, cards):
        user = UserFactory(username="ada")

        assert self.run(cards, "--owner", "nobody") == ("", True)
        self.run(cards, "--owner", "ada")

        assert Album.objects.get().owner == user

    def test_wants_one_source(self, cards):
        assert self.run() == ("", True)
        assert self.run(cards, "--shipped") == ("", True)
