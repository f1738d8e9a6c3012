import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections
from django.utils import timezone

from albums import services
from albums.models import Image, ImageText, Label, LabelRevision
from albums.services import NewLabel, put_label, put_labels
from albums.tests.factories import ImageFactory, LabelFactory
from imagehub.accounts.tests.factories import UserFactory
from imagehub.errors import Invalid

pytestmark = pytest.mark.django_db


@pytest.fixture
def image():
    return ImageFactory()


@pytest.fixture
def ada():
    return UserFactory(staff=True)


def said(image):
    return sorted(
        (label.kind, label.text, label.origin, label.model) for label in Label.objects.filter(image=image)
    )


def history(image):
    return [
        (revision.change, revision.text, revision.origin)
        for revision in LabelRevision.objects.filter(image=image).order_by("changed_at", "pk")
    ]


def words(image):
    return ImageText.objects.get(image=image).document


class TestCaptions:
    def test_each_source_has_one(self, image, ada):
        put_label(image, "caption", "a heart", "human", user=ada)
        put_label(image, "caption", "heart.png", "import")
        put_label(image, "caption", "buy hearts", "scrape")
        put_label(image, "caption", "a red shape", "model", model="blip 1", confidence=0.5)
        put_label(image, "caption", "a red heart", "model", model="blip 2", confidence=0.9)

        assert said(image) == [
            ("caption", "a heart", "human", ""),
            ("caption", "a red heart", "model", "blip 2"),
            ("caption", "a red shape", "model", "blip 1"),
            ("caption", "buy hearts", "scrape", ""),
            ("caption", "heart.png", "import", ""),
        ]
        assert history(image) == []

    def test_one_that_is_written_again_is_replaced_and_remembered(self, image, ada):
        first = put_label(image, "caption", "a hart", "human", user=UserFactory())
        second = put_label(image, "caption", " a heart\n", "human", user=ada)

        assert (first.is_new, second.is_new) == (True, False)
        assert second.pk == first.pk
        assert said(image) == [("caption", "a heart", "human", "")]
        assert history(image) == [("replaced", "a hart", "human")]
        revision = LabelRevision.objects.get()
        assert (revision.label_id, revision.changed_by) == (first.pk, ada)
        assert revision.written_at == first.updated_at < revision.changed_at
        assert Label.objects.get().created_by == ada

    def test_one_that_says_the_same_changes_nothing(self, image):
        before = put_label(image, "caption", "a heart", "model", model="blip 2", confidence=0.9)

        after = put_label(image, "caption", "a heart", "model", model="blip 2", confidence=0.9)

        assert (after.pk, after.updated_at) == (before.pk, before.updated_at)
        assert history(image) == []

    @pytest.mark.parametrize("origin", ["import", "scrape", "model"])
    def test_of_people_is_never_overwritten(self, image, origin):
        model = "blip 2" if origin == "model" else ""
        put_label(image, "caption", "a heart", "human")

        put_label(image, "caption", "a shape", origin, model=model)

        assert ("caption", "a heart", "human", "") in said(image)
        assert history(image) == []

    def test_of_people_gives_way_when_that_is_asked_for_and_is_remembered(self, image):
        put_label(image, "caption", "a heart", "human")
        put_label(image, "caption", "a shape", "model", model="blip 2")

        label = put_label(image, "caption", "a symbol", "model", model="blip 2", replace_human=True)

        assert said(image) == [("caption", "a symbol", "model", "blip 2")]
        assert history(image) == [("replaced", "a heart", "human"), ("replaced", "a shape", "model")]
        assert services.caption_of(image) == "a symbol"
        assert Label.objects.get() == label


class TestTags:
    @pytest.mark.parametrize("same", ["red heart", "  Red \t HEART ", "\uff32ed heart", "red\u00a0heart"])
    def test_are_there_once_however_they_are_written(self, image, same):
        put_label(image, "tag", "red heart", "human")

        put_label(image, "tag", same, "human")

        assert Label.objects.count() == 1

    def test_of_other_words_are_other_tags(self, image):
        for text in ("red", "heart", "red heart", "redheart"):
            put_label(image, "tag", text, "human")

        assert Label.objects.count() == 4

    def test_of_a_model_leave_those_of_people_as_they_are(self, image):
        put_label(image, "tag", "Heart", "human")

        label = put_label(image, "tag", "heart", "model", model="tagger", confidence=0.9)

        assert (label.text, label.origin, label.confidence) == ("Heart", "human", None)
        assert said(image) == [("tag", "Heart", "human", "")]
        assert history(image) == []

    def test_of_a_model_replace_those_of_people_only_when_asked(self, image):
        put_label(image, "tag", "Heart", "human")

        put_label(image, "tag", "heart", "model", model="tagger", replace_human=True)

        assert said(image) == [("tag", "heart", "model", "tagger")]
        assert history(image) == [("replaced", "Heart", "human")]

    def test_that_a_person_repeats_are_theirs_from_then_on(self, image, ada):
        put_label(image, "tag", "heart", "model", model="tagger", confidence=0.9)

        put_label(image, "tag", "heart", "human", user=ada)

        label = Label.objects.get()
        assert (label.origin, label.model, label.confidence, label.created_by) == ("human", "", None, ada)
        assert history(image) == [("replaced", "heart", "model")]

    def test_go_to_who_is_believed_more_whoever_comes_first(self, image):
        sources = [("scrape", ""), ("model", "tagger"), ("import", ""), ("human", "")]
        for text, order in (("up", sources), ("down", sources[::-1])):
            for origin, model in order:
                put_label(image, "tag", text, origin, model=model)

        assert [origin for _, _, origin, _ in said(image)] == ["human", "human"]

    def test_of_one_model_go_to_the_next(self, image):
        put_label(image, "tag", "heart", "model", model="tagger 1", confidence=0.2)

        put_label(image, "tag", "heart", "model", model="tagger 2", confidence=0.9)

        assert said(image) == [("tag", "heart", "model", "tagger 2")]
        assert history(image) == [("replaced", "heart", "model")]


@pytest.mark.parametrize(
    ("pointer", "values"),
    [
        ("/text", {"text": " \n "}),
        ("/text", {"text": "x" * 2001}),
        ("/text", {"kind": "tag", "text": "x" * 101}),
        ("/text", {"kind": "tag", "text": "\ufdfa" * 100}),  # each is many characters in the normal form
        ("/text", {"text": "a\0b"}),
        ("/text", {"text": "a\ud800b"}),
        ("/kind", {"kind": "title"}),
        ("/origin", {"origin": "magic"}),
        ("/model", {"origin": "model"}),
        ("/model", {"origin": "human", "model": "blip"}),
        ("/model", {"origin": "model", "model": "x" * 201}),
        ("/confidence", {"origin": "model", "model": "blip", "confidence": 1.01}),
        ("/confidence", {"origin": "model", "model": "blip", "confidence": float("nan")}),
    ],
)
def test_what_no_label_can_say_is_refused(image, pointer, values):
    values = {"kind": "caption", "text": "a heart", "origin": "human"} | values

    with pytest.raises(Invalid) as refusal:
        put_label(image, **values)

    assert refusal.value.pointer == pointer
    assert not Label.objects.exists()


class TestPutLabels:
    def test_returns_the_labels_in_the_order_of_the_rows(self):
        images = ImageFactory.create_batch(3)
        put_label(images[1], "tag", "Red", "human")
        rows = [NewLabel(image.pk, "tag", "red", "model", "tagger") for image in reversed(images)]

        labels = put_labels(rows)

        assert [label.image_id for label in labels] == [image.pk for image in reversed(images)]
        assert [label.origin for label in labels] == ["model", "human", "model"]
        assert [label.is_new for label in labels] == [True, False, True]

    def test_takes_one_row_after_the_other(self, image):
        put_labels(
            [
                NewLabel(image.pk, "caption", "first", "scrape"),
                NewLabel(image.pk, "caption", "second", "scrape"),
                NewLabel(image.pk, "tag", "Red", "human"),
                NewLabel(image.pk, "tag", "red", "scrape"),
                NewLabel(image.pk, "caption", "a human's", "human"),
                NewLabel(image.pk, "caption", "a model's", "model", "blip", replace_human=True),
            ]
        )

        assert said(image) == [
            ("caption", "a model's", "model", "blip"),
            ("caption", "second", "scrape", ""),
            ("tag", "Red", "human", ""),
        ]
        assert history(image) == [("replaced", "first", "scrape"), ("replaced", "a human's", "human")]

    def test_leaves_out_images_that_are_gone(self, image):
        gone = NewLabel(uuid.uuid4(), "tag", "red", "import")

        assert len(put_labels([gone, NewLabel(image.pk, "tag", "red", "import")])) == 1
        with pytest.raises(services.ImageGone):
            put_label(Image(pk=gone.image_id), "tag", "red", "import")

    def test_takes_nothing(self):
        assert put_labels([]) == []

    def test_keeps_the_time_at_which_something_was_said_elsewhere(self, image):
        then = timezone.now().replace(year=2020)

        put_labels([NewLabel(image.pk, "tag", "red", "import", created_at=then)])

        assert Label.objects.get().created_at == then

    @pytest.mark.parametrize("rows", [1, 40])
    def test_costs_the_same_queries_for_many_as_for_one(self, rows, django_assert_num_queries):
        images = ImageFactory.create_batch(rows)

        def say(model):
            return put_labels([NewLabel(image.pk, "tag", "red", "model", model) for image in images])

        with django_assert_num_queries(
            8
        ):  # a savepoint and its end, the lock, what is there, what is new, the words
            say("tagger 1")
        with django_assert_num_queries(9):  # and the history
            say("tagger 2")
        with django_assert_num_queries(4):
            say("tagger 2")

    def test_more_than_a_batch_are_written_together_or_not_at_all(self, image, monkeypatch):
        monkeypatch.setattr("albums.services.labels.BATCH", 2)
        rows = [NewLabel(image.pk, "tag", f"tag {number}", "import") for number in range(5)]

        assert [label.text for label in put_labels(rows)] == [row.text for row in rows]


class TestChangeLabel:
    def test_makes_it_the_persons(self, image, ada):
        label = put_label(image, "caption", "a shape", "model", model="blip", confidence=0.5)

        changed = services.change_label(label, user=ada, text=" a heart ")

        assert changed.pk == label.pk
        assert said(image) == [("caption", "a heart", "human", "")]
        assert history(image) == [("replaced", "a shape", "model")]
        assert put_label(image, "caption", "a red heart", "human").pk == label.pk

    def test_of_a_model_even_when_it_only_agrees(self, image, ada):
        label = put_label(image, "tag", "heart", "model", model="blip", confidence=0.5)

        services.change_label(label, user=ada, text="heart")

        assert said(image) == [("tag", "heart", "human", "")]

    def test_to_what_it_says_already_changes_nothing(self, image, ada):
        label = put_label(image, "tag", "heart", "human")

        services.change_label(label, user=ada, text="heart ")

        assert history(image) == []

    def test_is_refused_where_the_image_would_have_it_twice(self, image, ada):
        put_label(image, "tag", "heart", "model", model="blip")
        put_label(image, "caption", "by people", "human")
        tag = put_label(image, "tag", "hart", "human")
        caption = put_label(image, "caption", "by a model", "model", model="blip")

        for label in (tag, caption):
            with pytest.raises(services.LabelExists):
                services.change_label(label, user=ada, text="Heart")

        assert history(image) == []

    def test_is_refused_when_it_is_gone(self, image, ada):
        label = put_label(image, "tag", "heart", "human")
        Label.objects.all().delete()

        with pytest.raises(services.LabelGone):
            services.change_label(label, user=ada, text="hart")


class TestRemoveLabel:
    def test_takes_it_away_and_remembers_it(self, image, ada):
        label = put_label(image, "tag", "heart", "model", model="blip", confidence=0.5)

        services.remove_label(label, user=ada)

        assert said(image) == []
        revision = LabelRevision.objects.get()
        assert (revision.change, revision.text, revision.confidence) == ("removed", "heart", 0.5)
        assert (revision.label_id, revision.changed_by) == (label.pk, ada)

    def test_only_once(self, image, ada):
        label = put_label(image, "tag", "heart", "human")
        services.remove_label(Label.objects.get(), user=ada)

        with pytest.raises(services.LabelGone):
            services.remove_label(label, user=ada)


def test_words_follow_every_change(image, ada):
    tag = put_label(image, "tag", "Zeppelin", "model", model="blip")
    assert "zeppelin" in words(image)

    put_label(image, "tag", "zeppelin", "human", user=ada)
    assert "zeppelin" in words(image)

    services.change_label(tag, user=ada, text="airship")
    assert "airship" in words(image)
    assert "zeppelin" not in words(image)

    services.remove_label(tag, user=ada)
    assert "airship" not in words(image)


class TestCaptionOf:
    def test_goes_by_who_is_believed(self, image):
        assert services.caption_of(image) is None
        put_label(image, "tag", "no caption", "human")
        for origin, text in [("scrape", "d"), ("model", "c"), ("import", "b"), ("human", "a")]:
            put_label(image, "caption", text, origin, model="blip" if origin == "model" else "")
            assert services.caption_of(image) == text

    def test_takes_the_newest_of_several_models(self, image):
        put_label(image, "caption", "older", "model", model="zebra")
        put_label(image, "caption", "oldest", "model", model="yak")
        put_label(image, "caption", "newest", "model", model="zebra")

        assert services.caption_of(image) == "newest"

    def test_of_many_costs_one_query(self, django_assert_num_queries):
        images = ImageFactory.create_batch(4)
        for image in images[:3]:
            put_label(image, "caption", f"a {image.pk}", "human")
            put_label(image, "caption", "a page's", "scrape")

        with django_assert_num_queries(1):
            captions = services.captions_of(image.pk for image in images)

        assert captions == {image.pk: f"a {image.pk}" for image in images[:3]}


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    THREADS = 8

    def in_threads(self, action):
        def run(number):
            try:
                return action(number)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(self.THREADS) as pool:
            return list(pool.map(run, range(self.THREADS)))

    def test_one_tag_said_by_many_is_there_once(self):
        image = ImageFactory()

        labels = self.in_threads(lambda number: put_label(image, "tag", "heart", "model", model=f"m{number}"))

        assert {label.pk for label in labels} == {Label.objects.get().pk}
        assert sum(label.is_new for label in labels) == 1
        assert LabelRevision.objects.count() == self.THREADS - 1

    def test_tags_said_by_many_are_all_found(self):
        image = ImageFactory()

        self.in_threads(lambda number: put_label(image, "tag", f"tag{number}", "human"))

        assert all(f"tag{number}" in words(image) for number in range(self.THREADS))

    def test_batches_in_opposite_orders_do_not_wait_for_each_other(self):
        images = ImageFactory.create_batch(6)

        def put(number):
            rows = [NewLabel(image.pk, "tag", "heart", "import") for image in images]
            return len(put_labels(rows if number % 2 else reversed(rows)))

        assert self.in_threads(put) == [6] * self.THREADS
        assert Label.objects.count() == 6

    def test_people_and_models_at_once_leave_it_to_people(self):
        image = ImageFactory()

        def put(number):
            origin = "model" if number % 2 else "human"
            put_label(image, "tag", "heart", origin, model="blip" if origin == "model" else "")

        self.in_threads(put)

        assert said(image) == [("tag", "heart", "human", "")]

    def test_one_that_many_remove_is_removed_once(self):
        label = LabelFactory()

        def remove(number):
            try:
                services.remove_label(label, user=None)
            except services.LabelGone:
                return 0
            return 1

        assert sum(self.in_threads(remove)) == 1
        assert LabelRevision.objects.count() == 1
