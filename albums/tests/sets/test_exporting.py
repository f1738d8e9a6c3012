from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from albums.models import Album
from albums.set_templates.importing import import_sets
from albums.tests.sets.decks import deck

pytestmark = pytest.mark.django_db

FIELDS = (
    "name", "description", "kind", "visibility", "is_set_template", "set_rows", "base_prompt", "prompt_template",
    "style_suffix", "example_theme", "negative_prompt", "width", "height", "loras", "set_key",
)  # fmt: skip


def export(folder, *arguments):
    output = StringIO()
    call_command("export_sets", str(folder), *arguments, stdout=output)
    return output.getvalue().splitlines()[:-1]


@pytest.fixture
def albums():
    plain = deck(
        name="Deck: the “first”", set_key="no/file: name", visibility="public", width=512, height=720
    )
    rows = [{"zeal": "=1", "a": "é, “x”\nyes"}, {"zeal": "null", "a": "0x10"}]
    odd = deck(
        name="  yes",
        description="two\nlines: a",
        set_rows=rows,
        prompt_template="{zeal}: {a}",
        loras=[{"id": "7", "weight": -0.5}],
        example_theme="1984",
        negative_prompt="- no",
    )
    odd.name = "yes"
    namesake = deck(name="yes")
    for album in (plain, odd, namesake):
        album.save()
    return Album.objects.set_templates()


def as_they_are():
    return list(Album.objects.order_by("set_key").values(*FIELDS))


def test_what_is_written_is_imported_again_as_it_was(tmp_path, albums):
    folder = tmp_path / "new" / "sets"

    assert export(folder) == ["no/file: name", "yes", "yes_2"]

    before = as_they_are()
    assert [item.outcome for item in import_sets(folder)] == ["unchanged"] * 3
    Album.objects.all().delete()
    assert [(item.outcome, item.warnings) for item in import_sets(folder)] == [("created", [])] * 3
    assert as_they_are() == before


def test_the_order_of_columns_is_kept(tmp_path, albums):
    export(tmp_path / "sets", "--key", "no/file: name")

    assert (tmp_path / "sets" / "nofile_name.csv").read_text().splitlines()[0] == "value,suit"


def test_only_some(tmp_path, albums):
    assert export(tmp_path / "sets", "--key", "no/file: name") == ["no/file: name"]
    with pytest.raises(CommandError, match="unknown"):
        export(tmp_path / "more", "--key", "unknown")


def test_nothing_is_overwritten(tmp_path, albums):
    folder = tmp_path / "sets"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")

    with pytest.raises(CommandError, match="not empty"):
        export(folder)

    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    assert not Album.objects.filter(set_key="yes").exists()
