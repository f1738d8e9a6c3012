import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from albums.models import Image, ImageText, Label
from albums.services import index_words
from albums.tests.factories import AlbumFactory, ImageFactory
from albums.words import LONGEST_SEARCH, MOST_TERMS, Search, SearchTooLong, document_of, words_of

pytestmark = pytest.mark.django_db


def said(*prompts, **fields):
    """Insert images with these prompts and their words; return them."""
    images = ImageFactory.create_batch(len(prompts), public=True, name="-", **fields)
    for image, prompt in zip(images, prompts, strict=True):
        image.prompt = prompt
    Image.objects.bulk_update(images, ["prompt"])
    index_words([image.pk for image in images])
    return images


def found(text, images=None):
    """Return the prompts that a search finds, in its order."""
    images = Image.objects.all() if images is None else images
    return list(images.search(text).order_by("-arrival").values_list("prompt", flat=True))


def test_what_comes_in_together_arrives_in_its_order():
    first, second, third = ImageFactory.create_batch(3, public=True, prompt="a red heart")

    index_words([second.pk, third.pk, first.pk])

    newest_first = Image.objects.search("red").order_by("-arrival").values_list("pk", flat=True)
    assert list(newest_first) == [first.pk, third.pk, second.pk]


class TestWords:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("Red HEART", ["red", "heart"]),
            ("café, naïve; Ångström", ["cafe", "naive", "angstrom"]),
            ("Straße", ["strasse"]),
            ("sci-fi 8k (best:1.2)", ["sci", "fi", "8k", "best", "1", "2"]),
            ("ПРИВЕТ мир", ["привет", "мир"]),
            ("红心 ace", ["红", "心", "ace"]),
            ("İstanbul", ["istanbul"]),
            ("!?… \0 _", []),
            ("", []),
        ],
    )
    def test_are_without_case_accents_and_punctuation(self, text, words):
        assert words_of(text) == words

    @given(st.text())
    def test_hold_nothing_that_a_database_could_split(self, text):
        words = words_of(text)

        assert words_of(" ".join(words)) == words
        assert all(char.isalnum() or unicodedata.category(char)[0] == "M" for char in "".join(words))
        assert not set("".join(words)) & set("'\"%_* \\")

    @given(st.text())
    def test_do_not_depend_on_how_a_text_is_composed(self, text):
        assert words_of(unicodedata.normalize("NFC", text)) == words_of(unicodedata.normalize("NFD", text))

    def test_stand_between_spaces_in_a_document(self):
        assert document_of("Red heart.", "", "ACE") == " red heart ace "
        assert document_of("", "…") == ""


class TestParse:
    def test_reads_words_phrases_beginnings_and_exclusions(self):
        search = Search.parse('red "Ace of Spades" water* -joker -"two of"')

        assert search.wanted == [
            ("red", False), ("ace", False), ("of", False), ("spades", False), ("water", True),
        ]  # fmt: skip
        assert search.phrases == [" ace of spades "]
        assert search.excluded == [" joker ", " two of "]

    def test_takes_what_is_joined_for_a_phrase(self):
        assert Search.parse("sci-fi").phrases == [" sci fi "]

    @pytest.mark.parametrize("text", ["x" * (LONGEST_SEARCH + 1), "x " * (MOST_TERMS + 1)])
    def test_refuses_what_nobody_types(self, text):
        with pytest.raises(SearchTooLong):
            Search.parse(text)


class TestSearch:
    def test_wants_every_word(self):
        said("a red heart", "a red spade", "a black heart")

        assert found("red heart") == ["a red heart"]
        assert found("RED") == ["a red spade", "a red heart"]
        assert found("re") == []

    def test_finds_the_newest_first(self):
        said("one card", "two card", "three card")

        assert found("card") == ["three card", "two card", "one card"]

    def test_finds_phrases_only_in_a_row(self):
        said("the ace of spades", "spades of the ace")

        assert found('"ace of spades"') == ["the ace of spades"]
        assert len(found("ace of spades")) == 2

    def test_does_not_take_a_part_of_a_word_for_a_phrase(self):
        said("a palace of spades")

        assert found('"ace of spades"') == []

    def test_finds_beginnings(self):
        said("watercolour", "water", "underwater")

        assert found("water*") == ["water", "watercolour"]
        assert found("waterc*") == ["watercolour"]
        assert found("underw*") == ["underwater"]
        assert found("w*") == ["water", "watercolour"]

    def test_leaves_out_what_is_excluded(self):
        said("red heart", "red spade")

        assert found("red -heart") == ["red spade"]
        assert found("-heart") == ["red spade"]
        assert found("-red") == []
        assert found('red -"red heart"') == ["red spade"]
        assert found("red -he*") == ["red spade"]

    def test_does_not_mind_accents_scripts_and_case(self):
        said("Un CAFÉ à Zürich", "привет", "一张红心图")

        assert found("cafe") == found("Café") == found("ZURICH") == ["Un CAFÉ à Zürich"]
        assert found("ПРИВЕТ") == ["привет"]
        assert found("红心") == ["一张红心图"]

    def test_finds_nothing_where_there_is_no_word(self):
        said("red")

        assert found("!!") == found('""') == found("-") == found("*") == []

    def test_looks_at_names_prompts_captions_and_tags(self):
        image = ImageFactory(name="kettle", prompt="green", negative_prompt="blurred")
        for kind, text in (("caption", "a cloth"), ("tag", "Still Life")):
            Label.objects.create(image=image, kind=kind, text=text, identity=text.casefold())
        index_words([image.pk])

        for word in ("kettle", "green", "cloth", "life", "kettle green cloth life"):
            assert Image.objects.search(word).count() == 1, word
        assert Image.objects.search("blurred").count() == 0

    def test_follows_changes_and_deletions(self):
        (image,) = said("a red heart")
        Image.objects.filter(pk=image.pk).update(prompt="a black spade")
        index_words([image.pk])

        assert found("heart") == []
        assert found("spade") == ["a black spade"]
        image.delete()
        assert found("spade") == []
        assert ImageText.objects.count() == 0

    def test_goes_together_with_other_conditions(self):
        first, second = said("a red heart", "a red spade")
        album = AlbumFactory(images=[first])

        assert found("red", Image.objects.in_album(album)) == ["a red heart"]
        assert list(Image.objects.in_album(album).search("red", by_rows=True)) == [first]
        assert list(Image.objects.filter(pk=second.pk).search("red -heart")) == [second]
        assert Image.objects.search("red").select_related("owner").count() == 2

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(st.text("ab é中\"-* '%_\\", max_size=8), min_size=1, max_size=5),
        st.text("ab é中\"-* '%_\\:()^&|!+\0", max_size=12),
    )
    def test_means_what_the_words_say(self, db, prompts, text):
        """Compare with the plain meaning of a search, whatever is searched for, on this database."""
        Image.objects.all().delete()
        said(*prompts)
        search = Search.parse(text)

        def matches(prompt):
            document = document_of(prompt)
            hits = [term.phrase in document for term in search.terms if not term.is_excluded]
            misses = [term.phrase in document for term in search.terms if term.is_excluded]
            return bool(search.terms) and all(hits) and not any(misses)

        wanted = [prompt for prompt in reversed(prompts) if matches(prompt)]
        assert found(text) == wanted
        few = Image.objects.search(text, by_rows=True).order_by("-arrival")
        assert list(few.values_list("prompt", flat=True)) == wanted


class TestApi:
    def get(self, query, **params):
        return APIClient().get("/api/images", {"q": query, **params})

    def names(self, response):
        assert response.status_code == 200, response.content
        return [row["prompt"] for row in response.json()["results"]]

    def test_pages_through_what_is_found(self):
        said(*(f"card {number}" for number in range(7)), "nothing")

        seen, url = [], "/api/images?q=card&limit=3"
        while url:
            response = APIClient().get(url)
            seen += self.names(response)
            url = response.json()["next"]

        assert seen == [f"card {number}" for number in reversed(range(7))]

    def test_sorts_as_asked(self):
        images = said("card a", "card b", "card c")
        for image, rating in zip(images, (3, 1, 2), strict=True):
            Image.objects.filter(pk=image.pk).update(rating=rating)

        assert self.names(self.get("card", ordering="rating")) == ["card b", "card c", "card a"]

    def test_keeps_an_album_in_its_order(self):
        images = said("card a", "card b", "spade")
        album = AlbumFactory(public=True, images=images)

        response = self.get("card", album=album.pk)

        assert self.names(response) == ["card a", "card b"]

    def test_shows_nobody_what_they_may_not_see(self):
        said("hidden card")
        Image.objects.update(visibility="private")

        assert self.names(self.get("card")) == []

    def test_does_not_mind_an_empty_one(self):
        said("card")

        assert self.names(self.get(" ")) == ["card"]

    @pytest.mark.parametrize("text", ["x" * 501, "a " * 21, "a\0b"])
    def test_refuses_what_nobody_types(self, text):
        response = self.get(text)

        assert response.status_code == 400
        assert response.json()["errors"][0]["pointer"] == "/q"

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.text(max_size=40))
    def test_has_an_answer_to_everything(self, db, text):
        assert self.get(text).status_code in ({400} if "\0" in text else {200})
