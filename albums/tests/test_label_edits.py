import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from albums import services
from albums.models import Image, Label, LabelEdit, LabelKind, LabelOrigin, LabelRevision
from albums.services import (
    LabelChange,
    edit_labels,
    label_edits,
    preview_edit,
    put_label,
    trash_images,
    undo_edit,
)
from albums.tests.factories import ImageFactory, LabelFactory, many_images
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.errors import Invalid

pytestmark = pytest.mark.django_db


@pytest.fixture
def user():
    return UserFactory(staff=True)


def captioned(*captions):
    """Return an image for each caption; a tuple says who has said so."""
    images = []
    for caption in captions:
        text, origin, model = (*caption, "", "")[:3] if isinstance(caption, tuple) else (caption, "human", "")
        images.append(ImageFactory())
        if text:
            LabelFactory(image=images[-1], text=text, origin=origin, model=model)
    return images


def ids(images):
    return [image.pk for image in images]


def said(image, kind=LabelKind.CAPTION):
    return sorted(Label.objects.filter(image=image, kind=kind).values_list("text", "origin", "model"))


def everything():
    """Return all that is said, and by whom."""
    names = ("id", "image_id", "kind", "text", "identity", "origin", "model", "confidence", "created_by_id")
    return sorted(Label.objects.values_list(*names))


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        (LabelChange("prefix", "ohwx, "), "a red heart", "ohwx, a red heart"),
        (LabelChange("prefix", "ohwx, "), "ohwx, a red heart", "ohwx, a red heart"),
        (LabelChange("prefix", "a "), "another heart", "a another heart"),
        (LabelChange("prefix", " a "), "a heart", "a heart"),
        (LabelChange("suffix", ", in ink"), "a red heart", "a red heart, in ink"),
        (LabelChange("suffix", " ink"), "a pink", "a pink ink"),
        (LabelChange("suffix", " ink "), "a heart in ink", "a heart in ink"),
        (LabelChange("suffix", ", in ink"), "a red heart, in ink", "a red heart, in ink"),
        (LabelChange("replace", "red", "blue"), "a red red heart", "a blue blue heart"),
        (LabelChange("replace", "red ", ""), "a red heart", "a heart"),
        (LabelChange("replace", "Red", "blue"), "a red heart", "a red heart"),
        (LabelChange("replace", ".", "!"), "a red heart", "a red heart"),
    ],
)
def test_what_becomes_of_a_caption(change, before, after, user):
    (image,) = captioned(before)

    edit_labels([image.pk], change, user=user)

    assert said(image) == [(after, "human", "")]


@pytest.mark.parametrize(
    ("values", "pointer"),
    [
        ({"action": "shout", "text": "x"}, "/action"),
        ({"action": "prefix", "text": ""}, "/text"),
        ({"action": "add_tag", "text": "  "}, "/text"),
        ({"action": "add_tag", "text": "x" * 101}, "/text"),
        ({"action": "prefix", "text": "x", "replacement": "y"}, "/replacement"),
        ({"action": "replace", "text": "x", "replacement": "x"}, "/replacement"),
    ],
)
def test_a_change_that_is_none_is_refused(values, pointer):
    with pytest.raises(Invalid) as caught:
        LabelChange(**values)

    assert caught.value.pointer == pointer


class TestEdit:
    def test_the_caption_that_training_would_use_is_changed_and_is_a_persons_from_then_on(self, user):
        (image,) = captioned(("by an import", "import"))
        LabelFactory(image=image, text="by a model", origin="model", model="seer 1")

        edit_labels([image.pk], LabelChange("prefix", "ohwx, "), user=user)

        assert said(image) == [("by a model", "model", "seer 1"), ("ohwx, by an import", "human", "")]
        revision = LabelRevision.objects.get()
        assert (revision.text, revision.origin, revision.changed_by) == ("by an import", "import", user)
        assert services.caption_of(image) == "ohwx, by an import"

    def test_it_counts_what_it_does_and_shows_some_of_it(self, user):
        images = captioned("a red heart", "a blue heart", "", "red", "a red " + "x" * 1992)
        change = LabelChange("replace", "red", "crimson")

        preview = preview_edit(ids(images), change)
        edit, done = edit_labels(ids(images), change, user=user)

        assert preview == done
        assert (edit.images, edit.changed) == (done.images, done.changed) == (5, 2)
        assert done.skipped == {"no_caption": 1, "max_length": 1}
        assert {(example.before, example.after) for example in done.examples} == {
            ("a red heart", "a crimson heart"),
            ("red", "crimson"),
        }

    def test_a_preview_changes_nothing(self, user):
        images = captioned("a red heart", "red")
        before = everything()

        preview_edit(ids(images), LabelChange("replace", "red", "blue"))

        assert everything() == before
        assert not LabelEdit.objects.exists()
        assert not LabelRevision.objects.exists()

    def test_a_caption_that_would_be_empty_stays(self, user):
        (image,) = captioned("red")

        _, done = edit_labels([image.pk], LabelChange("replace", "red"), user=user)

        assert done.skipped == {"blank": 1}
        assert said(image) == [("red", "human", "")]

    def test_tags_are_added_and_those_of_models_taken_over(self, user):
        fresh, modelled, human = ImageFactory(), ImageFactory(), ImageFactory()
        LabelFactory(image=modelled, kind="tag", text="Heart", identity="heart", origin="model", model="seer")
        LabelFactory(image=human, kind="tag", text="heart", identity="heart")

        edit, _ = edit_labels(ids([fresh, modelled, human]), LabelChange("add_tag", " heart "), user=user)

        assert said(fresh, "tag") == [("heart", "human", "")]
        assert said(modelled, "tag") == [("Heart", "human", "")]
        assert said(human, "tag") == [("heart", "human", "")]
        assert edit.changed == 2

    def test_a_tag_is_removed_whatever_its_case(self, user):
        images = [ImageFactory(), ImageFactory()]
        LabelFactory(image=images[0], kind="tag", text="Red  Heart", identity="red heart")
        LabelFactory(image=images[1], kind="tag", text="blue", identity="blue")

        edit, _ = edit_labels(ids(images), LabelChange("remove_tag", "RED heart"), user=user)

        assert [said(image, "tag") for image in images] == [[], [("blue", "human", "")]]
        assert edit.changed == 1

    def test_the_trash_and_the_unknown_are_left_alone(self, user):
        live, trashed = captioned("red", "red")
        trash_images([trashed.pk])

        edit, _ = edit_labels([live.pk, trashed.pk, uuid.uuid4()], LabelChange("prefix", "a "), user=user)

        assert (edit.images, edit.changed) == (1, 1)
        assert said(trashed) == [("red", "human", "")]

    def test_words_are_found_as_they_are_now(self, user):
        images = captioned("a vermilion heart", "a blue heart")

        edit, _ = edit_labels(ids(images), LabelChange("replace", "vermilion", "crimson"), user=user)
        assert list(Image.objects.search("crimson")) == images[:1]
        assert not Image.objects.search("vermilion").exists()

        undo_edit(edit, user=user)
        assert list(Image.objects.search("vermilion")) == images[:1]
        assert not Image.objects.search("crimson").exists()

    def test_more_images_than_one_edit_may_have_are_refused(self, user, monkeypatch):
        monkeypatch.setattr(label_edits, "MOST_IMAGES", 2)
        images = captioned("a", "b", "c")

        with pytest.raises(services.TooManyToEdit, match="3"):
            edit_labels(ids(images), LabelChange("prefix", "x"), user=user)

    def test_many_images_take_as_many_queries_as_a_few(self, user, django_assert_max_num_queries):
        images = many_images(300)
        Label.objects.bulk_create(
            Label(image=one, kind="caption", text=f"picture {number}", identity="human")
            for number, one in enumerate(images)
        )

        with django_assert_max_num_queries(25):
            edit_labels(ids(images), LabelChange("prefix", "ohwx, "), user=user)

        assert Label.objects.filter(text__startswith="ohwx, picture").count() == 300


class TestUndo:
    @pytest.mark.parametrize(
        "change",
        [
            LabelChange("prefix", "ohwx, "),
            LabelChange("replace", "red", "blue"),
            LabelChange("add_tag", "heart"),
            LabelChange("remove_tag", "heart"),
        ],
        ids=lambda change: change.action,
    )
    def test_everything_is_as_it_was_and_the_history_knows_both(self, user, change):
        images = captioned("a red heart", ("red, by a model", "model", "seer"), ("red", "import"), "")
        Label.objects.filter(image=images[0]).update(created_by=UserFactory())
        for place, origin in ((0, "human"), (2, "model")):
            LabelFactory(
                image=images[place],
                kind="tag",
                text="Heart",
                identity="heart",
                origin=origin,
                model="seer" if origin == "model" else "",
                confidence=0.5 if origin == "model" else None,
            )
        before, captions = everything(), services.captions_of(ids(images))

        edit, _ = edit_labels(ids(images), change, user=user)
        assert everything() != before
        history = LabelRevision.objects.count()
        undone = undo_edit(edit, user=user)

        assert everything() == before
        assert services.captions_of(ids(images)) == captions
        assert undone.restored == edit.changed
        assert undone.kept == 0
        assert LabelRevision.objects.count() >= history
        edit.refresh_from_db()
        assert edit.undone_by == user

    def test_what_was_said_since_stays(self, user):
        images = captioned("a red heart", "a red star", "a red ring")
        edit, _ = edit_labels(ids(images), LabelChange("replace", "red", "blue"), user=user)
        put_label(images[0], "caption", "something else", LabelOrigin.HUMAN, user=user)
        services.remove_label(Label.objects.get(image=images[1]), user=user)

        undone = undo_edit(edit, user=user)

        assert (undone.restored, undone.kept) == (1, 2)
        assert [said(image) for image in images] == [
            [("something else", "human", "")],
            [],
            [("a red ring", "human", "")],
        ]

    def test_a_tag_that_was_removed_and_set_again_stays_as_it_is(self, user):
        image = ImageFactory()
        LabelFactory(image=image, kind="tag", text="Heart", identity="heart")
        edit, _ = edit_labels([image.pk], LabelChange("remove_tag", "heart"), user=user)
        put_label(image, "tag", "HEART", LabelOrigin.HUMAN, user=user)

        with pytest.raises(services.NothingToUndo):
            undo_edit(edit, user=user)

        assert said(image, "tag") == [("HEART", "human", "")]

    def test_a_model_that_has_spoken_again_keeps_its_caption(self, user):
        (image,) = captioned(("red, by a model", "model", "seer"))
        edit, _ = edit_labels([image.pk], LabelChange("prefix", "ohwx, "), user=user)
        put_label(image, "caption", "blue, by a model", LabelOrigin.MODEL, model="seer")

        with pytest.raises(services.NothingToUndo):
            undo_edit(edit, user=user)

        assert said(image) == [("blue, by a model", "model", "seer"), ("ohwx, red, by a model", "human", "")]

    @pytest.mark.parametrize(
        "change",
        [LabelChange("prefix", "ohwx, "), LabelChange("remove_tag", "heart")],
        ids=["changed", "removed"],
    )
    def test_what_is_restored_is_as_old_as_it_was(self, user, change):
        (image,) = captioned("red")
        LabelFactory(image=image, kind="tag", text="heart", identity="heart")
        long_ago = timezone.now() - timedelta(days=9)
        Label.objects.update(created_at=long_ago, updated_at=long_ago + timedelta(days=1))
        before = list(Label.objects.order_by("pk").values_list("created_at", "updated_at"))

        edit, _ = edit_labels([image.pk], change, user=user)
        undo_edit(edit, user=user)

        assert list(Label.objects.order_by("pk").values_list("created_at", "updated_at")) == before

    def test_an_added_tag_that_was_changed_since_stays(self, user):
        image = ImageFactory()
        edit, _ = edit_labels([image.pk], LabelChange("add_tag", "heart"), user=user)
        services.change_label(Label.objects.get(), user=user, text="hearts")

        with pytest.raises(services.NothingToUndo):
            undo_edit(edit, user=user)

        assert said(image, "tag") == [("hearts", "human", "")]

    def test_it_happens_once(self, user):
        edit, _ = edit_labels(ids(captioned("red")), LabelChange("prefix", "a "), user=user)
        undo_edit(edit, user=user)

        with pytest.raises(services.AlreadyUndone):
            undo_edit(edit, user=user)

    @pytest.mark.parametrize(
        "undone", [("prefix", "a "), ("remove_tag", "red"), ("replace", "red", "old red")]
    )
    def test_edits_are_undone_from_the_last_to_the_first(self, user, undone):
        images = captioned("heart")
        before, edits = [], []
        for change in (LabelChange("prefix", "red "), LabelChange("add_tag", "red"), LabelChange(*undone)):
            before.append(everything())
            edits.append(edit_labels(ids(images), change, user=user)[0])
            assert everything() != before[-1]

        for edit, state in zip(reversed(edits), reversed(before), strict=True):
            undo_edit(edit, user=user)
            assert everything() == state

    def test_an_edit_that_another_has_changed_since_is_not_used_up(self, user):
        images = captioned("heart")
        first, _ = edit_labels(ids(images), LabelChange("prefix", "red "), user=user)
        second, _ = edit_labels(ids(images), LabelChange("prefix", "a "), user=user)

        with pytest.raises(services.NothingToUndo):
            undo_edit(first, user=user)
        first.refresh_from_db()
        assert first.undone_at is None
        assert said(images[0]) == [("a red heart", "human", "")]

        undo_edit(second, user=user)
        assert undo_edit(first, user=user).restored == 1
        assert said(images[0]) == [("heart", "human", "")]

    def test_what_a_person_has_changed_between_two_edits_stays(self, user):
        images = captioned("heart")
        first, _ = edit_labels(ids(images), LabelChange("prefix", "red "), user=user)
        services.change_label(Label.objects.get(), user=user, text="my heart")
        second, _ = edit_labels(ids(images), LabelChange("prefix", "a "), user=user)
        undo_edit(second, user=user)

        with pytest.raises(services.NothingToUndo):
            undo_edit(first, user=user)
        assert said(images[0]) == [("my heart", "human", "")]

    def test_of_two_models_the_one_that_spoke_last_does_so_again(self, user):
        (image,) = captioned(("by the younger", "model", "young"))
        LabelFactory(image=image, text="by the elder", origin="model", model="old")
        for days, model in ((2, "old"), (1, "young")):
            then = timezone.now() - timedelta(days=days)
            Label.objects.filter(model=model).update(created_at=then, updated_at=then)
        edit, _ = edit_labels([image.pk], LabelChange("prefix", "ohwx, "), user=user)
        again, _ = edit_labels([image.pk], LabelChange("replace", "elder", "eldest"), user=user)

        undo_edit(edit, user=user)

        assert again.changed == 0
        assert services.caption_of(image) == "by the younger"


def test_nothing_is_audited_for_nobody(user):
    edit_labels(ids(captioned("red")), LabelChange("prefix", "a "), user=None)

    assert not AuditEntry.objects.filter(target_type="albums.labeledit").exists()
