import time

import PIL.Image
import pytest

from albums.models import AlbumImage, Image, Label, LabelKind, LabelOrigin
from albums.services import remember_looks
from albums.similarity import Fingerprint
from albums.tests.factories import AlbumFactory, ImageFactory, many_images
from albums.tests.test_similarity import encoded, scene
from imagehub import storage
from imagehub.accounts.tests.factories import UserFactory
from training.estimates import estimate_training
from training.models import BaseModel, ImageInspection
from training.services.datasets import snapshot
from training.services.inspections import inspect_albums
from training.services.preflight import MOST_NAMED, preflight
from training.tests.datasets.albums import FEW, RECIPE, caption, captioned_album, image
from training.tests.factories import starter_model

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _few_are_enough(set_config):
    set_config(FEW)


def changed(**values):
    return RECIPE.model_copy(update=values)


def codes(findings):
    return {finding.code for finding in findings}


def finding(findings, code):
    return next(finding for finding in findings if finding.code == code)


def inspected(album):
    inspect_albums([str(album.pk)])
    return album


def stored(pixels, file_format="PNG", **options):
    content = encoded(pixels, file_format, **options).fp.getvalue()
    size = pixels.size
    return ImageFactory(content=content, width=size[0], height=size[1])


class TestReport:
    def test_what_it_counts_is_what_a_run_would_have(self):
        album = inspected(captioned_album(20))
        images = list(album.images.all())
        images[0].labels.all().delete()
        Image.objects.filter(pk=images[1].pk).update(width=20)

        report = preflight([album], RECIPE)

        dataset = snapshot([album], RECIPE, UserFactory())
        assert report.counts.usable == 18 == dataset.images.count()
        assert report.counts.train == dataset.images.filter(role="train").count()
        assert report.counts.validation == dataset.images.filter(role="validation").count()
        assert (report.counts.images, report.counts.captioned, report.counts.inspected) == (20, 19, 20)
        assert report.buckets == {(64, 64): report.counts.train}
        assert report.blockers == []
        assert report.estimate is None

    def test_a_base_model_tells_what_it_will_take(self):
        report = preflight([captioned_album(5)], RECIPE, base_model=BaseModel.objects.get(name="starter"))

        assert report.estimate.memory_bytes > 0
        assert report.estimate.seconds > 0
        assert report.estimate.disk_bytes > 5 * 64

    def test_an_album_without_faults_has_no_findings(self):
        album = AlbumFactory(images=[stored(scene(number).resize((64, 64))) for number in range(8)])
        for one in album.images.all():
            caption(one)

        report = preflight([inspected(album)], changed(validation_share=0.5))

        assert (report.blockers, report.warnings) == ([], [])

    def test_steps_and_epochs_follow_from_batches_of_one_size(self):
        images = [image(number) for number in range(5)] + [image(9, size=(96, 64))]
        for one in images:
            caption(one)
        album = AlbumFactory(images=images)
        recipe = changed(
            validation_share=0.0, batch_size=2, gradient_accumulation_steps=2, repeats={str(album.pk): 3}
        )

        report = preflight([album], recipe)

        # 15 pictures in 8 batches, and 3 in 2: of ten batches, five steps.
        assert report.steps_per_epoch == 5
        assert report.epochs == 12.0

    def test_a_crop_is_shown_in_the_pixels_of_the_picture(self):
        images = [image(number) for number in range(4)] + [image(9, size=(70, 64))]
        for one in images:
            caption(one)

        (crop,) = preflight([AlbumFactory(images=images)], RECIPE).crops

        assert crop.image == images[4].pk
        assert crop.bucket == (64, 56)
        assert crop.box == (0, 1.375, 70, 62.625)


class TestEstimate:
    def test_it_tells_what_the_run_would_take(self):
        album = captioned_album(8)
        model = starter_model()

        report = preflight([album], RECIPE, base_model=model)

        size = sum(image.size_bytes for image in album.images.all())
        assert report.estimate == estimate_training(RECIPE, model, pictures=8, picture_bytes=size)
        assert report.estimate.disk["pictures"] == size > 0


@pytest.mark.parametrize(
    ("targets", "is_warned_of"),
    [
        ("attention", False),
        (("to_k",), False),
        (("attn2.to_v", "proj_in"), False),
        (("mid_block.attentions.0.transformer_blocks.0.attn2.to_k",), False),
        (("proj_in", "to_q"), True),
        (("attn1.to_k",), True),
    ],
)
def test_an_adapter_that_other_programs_could_not_place_is_warned_of(targets, is_warned_of):
    report = preflight([captioned_album(8)], changed(target_modules=targets))

    assert ("no_cross_attention" in codes(report.warnings)) is is_warned_of


class TestBlockers:
    def test_too_few_captioned_images(self):
        album = captioned_album(2)
        caption(album.images.first(), "again", LabelOrigin.IMPORT)

        report = preflight([album], RECIPE)

        few = finding(report.blockers, "not_enough_images")
        assert few.count == 2
        assert few.pointer == "/album_ids"

    def test_files_that_cannot_be_read_once_that_is_known(self):
        album = captioned_album(5)
        first, second, *_ = album.images.order_by("pk")
        storage.delete(first.storage_name)
        storage.delete(second.storage_name)
        storage.write_file(second.storage_name, b"no picture")
        assert preflight([album], RECIPE).blockers == []

        report = preflight([inspected(album)], RECIPE)

        assert finding(report.blockers, "missing_files").images == (first.pk,)
        assert finding(report.blockers, "unreadable_pictures").images == (second.pk,)

    def test_a_disk_that_is_too_small(self, monkeypatch):
        album, model = captioned_album(5), BaseModel.objects.get(name="starter")
        needed = preflight([album], RECIPE, base_model=model).estimate.disk_bytes

        for free, is_enough in ((needed, True), (needed - 1, False)):
            monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: type("usage", (), {"free": free}))
            found = codes(preflight([album], RECIPE, base_model=model).blockers)
            assert ("disk_full" not in found) is is_enough


class TestWarnings:
    def test_few_images(self):
        assert "few_images" in codes(preflight([captioned_album(4)], RECIPE).warnings)
        assert "few_images" not in codes(preflight([captioned_album(5, first=20)], RECIPE).warnings)

    def test_images_without_caption_and_too_small_ones_are_named(self):
        album = captioned_album(6)
        first, second, *_ = album.images.order_by("pk")
        first.labels.all().delete()
        Image.objects.filter(pk=second.pk).update(height=63)

        warnings = preflight([album], RECIPE).warnings

        assert finding(warnings, "missing_captions").images == (first.pk,)
        assert finding(warnings, "too_small").images == (second.pk,)
        assert finding(warnings, "too_small").pointer == "/config/allow_upscaling"

    @pytest.mark.parametrize("has_model", [True, False])
    def test_captions_that_are_not_read_to_the_end(self, has_model):
        album = captioned_album(5)
        long, exact, *_ = album.images.order_by("pk")
        for one, words in ((long, 76), (exact, 75)):
            Label.objects.filter(image=one).update(text=" ".join(["red"] * words))
        model = BaseModel.objects.get(name="starter") if has_model else None

        warnings = preflight([album], RECIPE, base_model=model).warnings

        assert finding(warnings, "long_captions").images == (long.pk,)

    def test_captions_without_the_trigger_word(self):
        album = captioned_album(4)
        first = album.images.order_by("pk")[0]
        Label.objects.exclude(image=first).update(text="a photo of Ohwx")

        warnings = preflight([album], RECIPE, trigger_word="ohwx").warnings

        assert finding(warnings, "captions_without_trigger_word").images == (first.pk,)
        assert "captions_without_trigger_word" not in codes(preflight([album], RECIPE).warnings)

    def test_equal_files(self):
        images = [image(1), image(1), image(2), image(3)]
        for one in images:
            caption(one)

        warnings = preflight([AlbumFactory(images=images)], RECIPE).warnings

        assert set(finding(warnings, "exact_duplicates").images) == {images[0].pk, images[1].pk}

    def test_pictures_that_look_the_same(self):
        pictures = [scene(1), scene(2), scene(3)]
        images = [stored(one.resize((64, 64))) for one in pictures]
        images.append(stored(pictures[0].resize((64, 64)), "JPEG", quality=70))
        for one in images:
            caption(one)

        warnings = preflight([inspected(AlbumFactory(images=images))], RECIPE).warnings

        assert set(finding(warnings, "near_duplicates").images) == {images[0].pk, images[3].pk}
        assert "exact_duplicates" not in codes(warnings)

    def test_pictures_kept_apart_that_look_like_what_is_learned(self):
        album = captioned_album(20)
        remember_looks((one, Fingerprint(1, bytes(48))) for one in album.images.all())

        warnings = codes(preflight([album], RECIPE).warnings)
        assert "validation_resembles_training" in warnings
        assert "validation_resembles_training" not in codes(
            preflight([album], changed(validation_share=0.0)).warnings
        )

    @pytest.mark.parametrize(
        ("values", "code"),
        [
            ({"is_animated": True}, "animated"),
            ({"has_alpha": True}, "transparent"),
            ({"mode": "CMYK"}, "cmyk"),
        ],
    )
    def test_what_was_seen_of_a_file(self, values, code):
        album = captioned_album(4)
        first = album.images.order_by("pk")[0]
        ImageInspection.objects.create(image=first, **values)

        assert finding(preflight([album], RECIPE).warnings, code).images == (first.pk,)

    def test_pictures_of_which_more_is_cut_off_than_kept(self):
        images = [image(number) for number in range(4)] + [image(9, size=(1000, 64))]
        for one in images:
            caption(one)

        warnings = preflight([AlbumFactory(images=images)], RECIPE).warnings

        assert finding(warnings, "heavy_crop").images == (images[4].pk,)

    def test_a_bucket_with_one_picture_in_a_run_with_batches(self):
        images = [image(number) for number in range(4)] + [image(9, size=(96, 64))]
        for one in images:
            caption(one)
        album = AlbumFactory(images=images)
        recipe = changed(validation_share=0.0)

        assert "singletons" not in codes(preflight([album], recipe).warnings)
        warnings = preflight([album], recipe.model_copy(update={"batch_size": 2})).warnings

        assert finding(warnings, "singletons").images == (images[4].pk,)

    @pytest.mark.parametrize(
        ("values", "code"),
        [
            ({"validation_share": 0.0001}, "no_validation"),
            ({"validation_every": 0}, "validation_unused"),
            ({"steps": 3}, "less_than_an_epoch"),
        ],
    )
    def test_a_recipe_that_makes_no_use_of_the_pictures(self, values, code):
        album = captioned_album(20)

        assert code in codes(preflight([album], changed(**values)).warnings)
        assert code not in codes(preflight([album], RECIPE).warnings)

    def test_no_more_images_are_named_than_anybody_reads(self):
        images = many_images(MOST_NAMED + 10, width=64, height=64)
        album = AlbumFactory()
        AlbumImage.objects.bulk_create(
            AlbumImage(album=album, image=one, position=place) for place, one in enumerate(images)
        )

        missing = finding(preflight([album], RECIPE).warnings, "missing_captions")

        assert len(missing.images) == MOST_NAMED
        assert missing.count == MOST_NAMED + 10


class TestInspection:
    def test_what_nobody_has_looked_at_is_looked_at_in_the_background(
        self, django_capture_on_commit_callbacks, monkeypatch
    ):
        sent = []
        monkeypatch.setattr("imagehub.jobs.queue.async_task", lambda *args, **options: sent.append(args))
        album = captioned_album(4)

        with django_capture_on_commit_callbacks(execute=True):
            report = preflight([album], RECIPE)
        assert finding(report.warnings, "not_inspected").count == 4
        assert [args[0] for args in sent] == ["training.tasks.inspect_albums"]

        inspected(album)
        with django_capture_on_commit_callbacks(execute=True):
            report = preflight([album], RECIPE)
        assert "not_inspected" not in codes(report.warnings)
        assert len(sent) == 1

    def test_a_file_that_is_missing_is_looked_at_again(self, django_capture_on_commit_callbacks):
        album = captioned_album(4)
        inspected(album)
        ImageInspection.objects.filter(image=album.images.first()).update(problem="missing")

        with django_capture_on_commit_callbacks() as callbacks:
            report = preflight([album], RECIPE)

        assert "missing_files" in codes(report.blockers)
        assert len(callbacks) == 1

    def test_no_picture_is_opened(self, monkeypatch):
        def refuse(*_, **__):
            raise AssertionError("A picture was opened.")

        album = captioned_album(4)
        monkeypatch.setattr(PIL.Image, "open", refuse)

        preflight([album], RECIPE)


@pytest.mark.once
def test_ten_thousand_pictures_are_reported_on_in_seconds():
    images = many_images(10_000, width=64, height=64)
    album = AlbumFactory()
    AlbumImage.objects.bulk_create(
        AlbumImage(album=album, image=one, position=place) for place, one in enumerate(images)
    )
    Label.objects.bulk_create(
        Label(image=one, kind=LabelKind.CAPTION, text=f"picture {number}", identity="human")
        for number, one in enumerate(images)
    )
    began = time.process_time()

    report = preflight([album], RECIPE, base_model=BaseModel.objects.get(name="starter"))

    assert report.counts.usable == 10_000
    assert time.process_time() - began < 15
