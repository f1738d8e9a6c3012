"""What may stand in an entry, today and in older files."""

import json

import pytest

from albums.models import Album
from albums.tests.sets.folders import CARDS, ROWS, entry, outcomes, reasons, run

pytestmark = pytest.mark.django_db


class TestSpellings:
    def test_what_is_left_out_has_a_default(self, folder):
        entry(folder)
        run(folder)

        album = Album.objects.get()
        assert (album.name, album.width, album.visibility, album.loras) == ("Tarot", None, "private", [])

    def test_a_csv_file_without_an_entry_is_found(self, folder):
        (folder / "moon_phases.csv").write_text("phase,mood\nNew,dark\n")
        (folder / "SPIRITS.CSV").write_text("name,extra,description\nOak,x,old and kind\n")

        results = run(folder)

        assert {key: item.outcome for key, item in results.items()} == {
            "SPIRITS": "created",
            "moon_phases": "created",
        }
        phases = Album.objects.get(set_key="moon_phases")
        assert (phases.name, phases.base_prompt) == ("Moon Phases", "A Moon Phases card")
        assert phases.prompt_template == "{phase}, {mood}"
        assert Album.objects.get(set_key="SPIRITS").prompt_template == "{name}, {description}"
        assert outcomes(folder) == {"SPIRITS": "unchanged", "moon_phases": "unchanged"}

    def test_one_that_an_entry_speaks_of_is_not_found_a_second_time(self, cards):
        (cards / "config.yaml").write_text(CARDS.replace("csv_path: card_deck", "csv_path: ./other"))
        (cards / "other.csv").write_text(ROWS)
        (cards / "card_deck.csv").unlink()

        assert outcomes(cards) == {"card_deck": "created"}

    @pytest.mark.parametrize(
        ("value", "visibility"), [(True, "public"), ("yes", "public"), (False, "private"), ("no", "private")]
    )
    def test_is_public_decides_who_may_see_it(self, folder, value, visibility):
        entry(folder, is_public=value)
        run(folder)

        assert Album.objects.get().visibility == visibility

    @pytest.mark.parametrize(
        ("album_type", "kind"), [("set", "set"), ("batch", "set"), ("deck", "set"), ("manual", "manual")]
    )
    def test_album_type_is_the_kind(self, folder, album_type, kind):
        entry(folder, album_type=album_type)
        run(folder)

        assert Album.objects.get().kind == kind

    @pytest.mark.parametrize("as_text", [True, False])
    def test_generation_config_gives_sides_and_negative_prompt_when_nothing_nearer_does(
        self, folder, as_text
    ):
        config = {"width": 640, "height": "768", "negative_prompt": "blur", "steps": 30, "slug": "x"}
        entry(folder, height=512, generation_config=json.dumps(config) if as_text else config)

        [item] = run(folder).values()

        album = Album.objects.get()
        assert (album.width, album.height, album.negative_prompt) == (640, 512, "blur")
        assert item.warnings == ["“steps” of generation_config is left out."]

    def test_adapters_named_by_an_id_are_kept(self, folder):
        entry(folder, loras=[{"id": "a", "weight": 0.5}, {"id": "b"}])
        run(folder)

        assert Album.objects.get().loras == [{"id": "a", "weight": 0.5}, {"id": "b", "weight": 0.6}]

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"loras": [{"path": "/srv/x/ink.safetensors", "weight": 0.8}]}, ["“ink” (weight 0.8)"]),
            ({"lora": {"path": "C:\\x\\ink.safetensors", "weight": 1}}, ["“ink” (weight 1)"]),
            ({"lora": "ink.safetensors"}, ["“ink” (weight 0.6)"]),
            (
                {"loras": ["a/ink.safetensors", "b.safetensors"], "lora_weights": [0.1, 0.2]},
                ["“ink” (weight 0.1)", "“b” (weight 0.2)"],
            ),
            (
                {"loras": [{"path": "ink.safetensors"}], "lora_weights": {"ink.safetensors": 0.3}},
                ["“ink” (weight 0.3)"],
            ),
            ({"lora_weights": {"ink.safetensors": 0.4}}, ["“ink” (weight 0.4)"]),
            ({"lora_weights": [0.4]}, ["without a name (weight 0.4)"]),
        ],
    )
    def test_files_of_adapters_are_told_and_no_path_of_them_is_kept(self, folder, fields, told):
        entry(folder, **fields)

        [item] = run(folder).values()

        assert item.outcome == "created"
        assert [
            warning.removeprefix("The adapter ").partition(" is left out")[0] for warning in item.warnings
        ] == told
        assert Album.objects.get().loras == []

    def test_weights_by_name_also_go_to_an_adapter_with_an_id(self, folder):
        entry(folder, loras=[{"id": "7", "path": "ink.safetensors"}], lora_weights={"ink": 0.25})
        run(folder)

        assert Album.objects.get().loras == [{"id": "7", "weight": 0.25}]

    def test_who_made_it_and_its_old_address_are_left_behind_in_silence(self, folder):
        entry(folder, created_by="somebody@old.example", legacy_slug="old-tarot")

        assert [item.warnings for item in run(folder).values()] == [[]]

    def test_what_is_not_known_is_told(self, folder):
        entry(folder, colour="red")

        assert [item.warnings for item in run(folder).values()] == [
            ["The field “colour” is not known, and left out."]
        ]

    def test_numbers_may_stand_where_text_is_expected_and_text_where_numbers_are(self, folder):
        entry(folder, name=1984, width="512")
        run(folder)

        assert (Album.objects.get().name, Album.objects.get().width) == ("1984", 512)

    @pytest.mark.parametrize(
        ("fields", "pointer"),
        [
            ({"name": ["x"]}, "/name"),
            ({"name": "x" * 201}, "/name"),
            ({"base_prompt": True}, "/base_prompt"),
            ({"base_prompt": "x" * 2001}, "/base_prompt"),
            ({"width": 500}, "/width"),
            ({"height": [1]}, "/height"),
            ({"is_public": "perhaps"}, "/is_public"),
            ({"generation_config": "{"}, "/generation_config"),
            ({"generation_config": [1]}, "/generation_config"),
            ({"loras": {"a": 1}}, "/loras"),
            ({"loras": [7]}, "/loras/0"),
            ({"loras": [{"id": "a", "weight": 9}]}, "/loras/0/weight"),
            ({"loras": [{"id": "a", "weight": "much"}]}, "/loras/0/weight"),
            ({"lora_weights": 7}, "/lora_weights"),
        ],
    )
    def test_what_is_wrong_is_pointed_at(self, folder, fields, pointer):
        entry(folder, **fields)

        assert pointer in [reason.partition(":")[0] for reason in reasons(folder)]
        assert not Album.objects.exists()
