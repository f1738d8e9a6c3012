import os
import signal
import time
import uuid

import pytest
from django.db import transaction

from albums.models import Image, Label, LabelOrigin
from albums.services import put_label, trash_images
from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub import roots, storage
from imagehub.accounts.tests.factories import UserFactory
from imagehub.config import get_config
from imagehub.jobs import stopping
from imagehub.jobs.child import Child
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.runner import work_off
from training.models import LabelingItem, LabelingJob
from training.services import labeling, labeling_work
from training.starter.drawings import Drawing, draw
from training.tests.labeling.networks import write_classifier

STARTER = (
    "storage: {minimum_free_bytes: 0}\n"
    "labeling: {captioner: starter, tagger: starter, nsfw: starter, batch_size: 2, grace_seconds: 1}\n"
)
STATES = ("labeled", "kept", "failed", "waiting")


def stored(picture, **values):
    from io import BytesIO

    target = BytesIO()
    picture.save(target, "PNG")
    return ImageFactory(content=target.getvalue(), width=picture.width, height=picture.height, **values)


def drawing(shape="heart", color="red", background="white", **values):
    return stored(draw(Drawing(shape, color, background)), **values)


def plain(color="green", **values):
    import PIL.Image

    return stored(PIL.Image.new("RGB", (64, 64), color), **values)


def submit(images, task="caption", **values):
    return labeling.submit_labeling(
        owner=UserFactory(staff=True), task=task, image_ids=[image.pk for image in images], **values
    )


def work():
    """Let a worker do what is queued, and return the job."""
    work_off(Cluster.TRAINING)
    return LabelingJob.objects.latest("created_at")


def states(job):
    items = LabelingItem.objects.filter(job=job).order_by("position")
    return list(items.values_list("state", flat=True))


def said(image, kind="caption"):
    labels = Label.objects.filter(image=image, kind=kind).order_by("origin", "text")
    return list(labels.values_list("text", "origin", "model"))


class Shown:
    """What the program was shown, and whether it dies of that."""

    def __init__(self):
        self.asked, self.dies = [], lambda places: False


@pytest.fixture
def shown(monkeypatch):
    """Have the real program killed when it is about to be shown certain pictures."""
    shown, ready, send = Shown(), [], Child.send

    def send_or_kill(child, message):
        places = sorted(item["id"] for item in message["items"])
        shown.asked.append(places)
        if child not in ready:
            ready.append(child)
            child.give_back(list(events_until_ready(child)))
        if shown.dies(places):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            send(child, message)

    monkeypatch.setattr(Child, "send", send_or_kill)
    return shown


def events_until_ready(child):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for event in child.poll(1):
            yield event
            if event["event"] == "ready":
                return
    pytest.fail("The labeler does not become ready.")


@pytest.fixture(autouse=True)
def _starter(set_config):
    set_config(STARTER)


@pytest.mark.django_db
class TestSubmit:
    def test_each_image_is_named_once_in_the_order_that_was_asked_for(self):
        first, second, trashed = drawing(), drawing("star"), drawing("ring")
        trash_images([trashed.pk])

        job = submit([second, first, second, trashed])

        assert (job.status, job.total, job.model) == (JobStatus.QUEUED, 2, "starter")
        items = LabelingItem.objects.filter(job=job).order_by("position")
        assert list(items.values_list("image_id", flat=True)) == [second.pk, first.pk]

    @pytest.mark.parametrize(
        ("config", "task", "words"),
        [
            ("", "caption", "labeling.captioner names none"),
            ("labeling: {tagger: taggers}", "tag", "not under the models root"),
            ("labeling: {tagger: ../../etc}", "tag", "not under the models root"),
            ("labeling: {captioner: nudenet}", "caption", "only tells what is unfit"),
            ("labeling: {nsfw: nudenet}", "nsfw", "requirements-labeling.txt"),
        ],
    )
    def test_without_a_model_it_is_refused_with_the_reason(
        self, set_config, monkeypatch, config, task, words
    ):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        set_config(config)

        with pytest.raises(labeling.NoLabelingModel, match=words):
            submit([drawing()], task)
        assert not LabelingJob.objects.exists()

    def test_a_folder_under_the_models_root_and_a_hub_id_are_models(self, set_config):
        (roots.models_root() / "judges" / "one").mkdir(parents=True)
        set_config("labeling: {nsfw: judges/one, tagger: nobody/tags}")

        assert labeling.choose_model("nsfw").source == str(roots.models_root() / "judges" / "one")
        assert labeling.choose_model("tag").is_on_hub

    def test_no_name_of_a_model_tells_where_the_models_lie(self, set_config):
        folder = roots.models_root() / "judges" / "one"
        folder.mkdir(parents=True)
        roundabout = f"../{roots.models_root().name}/judges/one"
        set_config(f"labeling: {{nsfw: {roundabout}}}")

        assert labeling.choose_model("nsfw").name == "judges/one"
        assert labeling.find_model("nsfw", str(folder)).name == "judges/one"  # of a job that was there before

        set_config(f"labeling: {{nsfw: {folder}}}")
        assert labeling.configured_name("nsfw", get_config().labeling) == roundabout  # the last good one

    def test_too_many_and_none_are_refused(self, set_config):
        set_config(STARTER.replace("batch_size", "max_images: 1, batch_size"))

        with pytest.raises(labeling.TooManyToLabel):
            submit([drawing(), drawing("star")])
        with pytest.raises(labeling.NothingToLabel):
            submit([])

    def test_one_that_waits_is_cancelled_at_once_and_once(self):
        job = labeling.cancel_labeling(submit([drawing()]))

        assert job.status == JobStatus.CANCELLED
        with pytest.raises(labeling.LabelingFinished):
            labeling.cancel_labeling(job)


@pytest.mark.django_db(transaction=True)
class TestWork:
    def test_captions_are_the_models_and_stand_beside_what_others_said(self, anywhere):
        images = [drawing(), drawing("star", "blue"), drawing("ring", "black"), plain()]
        put_label(images[1], "caption", "by a page", LabelOrigin.SCRAPE)
        submit(images)

        job = work()

        assert job.status == JobStatus.COMPLETED, job.error_detail
        assert states(job) == ["labeled", "labeled", "labeled", "failed"]
        assert said(images[0]) == [("a red heart on a white background", "model", "starter 1")]
        assert said(images[1]) == [
            ("a blue star on a white background", "model", "starter 1"),
            ("by a page", "scrape", ""),
        ]
        failed = LabelingItem.objects.get(job=job, state="failed")
        assert "no drawing" in failed.detail
        assert said(images[3]) == []
        assert Label.objects.filter(image=images[0]).get().created_by == job.owner

    def test_what_a_person_said_stays_unless_it_is_overwritten(self):
        image = drawing()
        put_label(image, "caption", "by me", LabelOrigin.HUMAN)
        submit([image])

        assert states(work()) == ["kept"]
        assert said(image) == [("by me", "human", "")]

        submit([image], overwrite=True)
        assert states(work()) == ["labeled"]
        assert said(image) == [("a red heart on a white background", "model", "starter 1")]
        assert image.label_revisions.get().text == "by me"

    def test_tags_of_people_stay_theirs(self):
        image = drawing()
        put_label(image, "tag", "Heart", LabelOrigin.HUMAN)
        submit([image], "tag")

        assert states(work()) == ["labeled"]
        assert said(image, "tag") == [
            ("Heart", "human", ""),
            ("red", "model", "starter 1"),
            ("white background", "model", "starter 1"),
        ]

    def test_doing_it_again_changes_nothing(self):
        image = drawing()
        for _ in range(2):
            submit([image], "tag")
            work()

        assert len(said(image, "tag")) == 3
        assert not image.label_revisions.exists()

    def test_only_what_the_model_is_sure_of_is_called_safe(self):
        unknown, unclear, flagged, damaged = (
            drawing(),
            plain(),
            drawing("star", nsfw="flagged"),
            drawing("ring"),
        )
        storage.delete(damaged.storage_name)
        storage.write_file(damaged.storage_name, b"no picture")
        submit([unknown, unclear, flagged, damaged], "nsfw")

        job = work()

        assert states(job) == ["labeled", "failed", "kept", "failed"]
        found = dict(Image.objects.values_list("pk", "nsfw"))
        assert [found[image.pk] for image in (unknown, unclear, flagged, damaged)] == [
            "safe",
            "unknown",
            "flagged",
            "unknown",
        ]

    @pytest.mark.once  # torch takes its time to be imported
    def test_a_network_judges(self, set_config):
        write_classifier(roots.models_root() / "judge", ["normal", "nsfw"], sure_of="nsfw")
        set_config(STARTER.replace("nsfw: starter", "nsfw: judge"))
        image = drawing()
        submit([image], "nsfw")

        job = work()

        assert states(job) == ["labeled"], job.error_detail
        image.refresh_from_db()
        assert image.nsfw == "flagged"
        assert LabelingItem.objects.get().confidence > 0.99

    def test_a_judgement_made_meanwhile_stays(self, monkeypatch):
        image = drawing()
        submit([image], "nsfw")
        ask = labeling_work._Work._ask

        def judge_meanwhile(self, paths):
            found = ask(self, paths)
            Image.objects.filter(pk=image.pk).update(nsfw="flagged")
            return found

        monkeypatch.setattr(labeling_work._Work, "_ask", judge_meanwhile)

        assert states(work()) == ["kept"]
        image.refresh_from_db()
        assert image.nsfw == "flagged"

    def test_images_that_went_are_told(self):
        images = [drawing(), drawing("star"), drawing("ring"), drawing("cross")]
        job = submit(images)
        trash_images([images[0].pk])
        Image.objects.filter(pk=images[1].pk).delete()
        storage.delete(images[2].storage_name)

        work()

        assert states(job) == ["failed", "failed", "failed", "labeled"]
        assert {item.detail for item in LabelingItem.objects.filter(state="failed")} == {
            "The image has been deleted.",
            "The file is missing from the store.",
        }

    def test_a_job_in_which_everything_fails_has_failed(self):
        submit([plain()])

        job = work()

        assert (job.status, job.error_code) == (JobStatus.FAILED, "nothing_labeled")
        assert "no drawing" in job.error_detail

    @pytest.mark.once  # torch takes its time to be imported
    def test_a_model_that_cannot_be_used_fails_the_job_at_once(self, set_config):
        write_classifier(roots.models_root() / "judge", ["cat", "dog"])
        set_config(STARTER.replace("nsfw: starter", "nsfw: judge"))
        submit([drawing()], "nsfw")

        job = work()

        assert (job.status, job.error_code, job.attempt) == (JobStatus.FAILED, "model_invalid", 1)
        assert "do not say which pictures are unfit" in job.error_detail
        assert str(roots.models_root()) not in job.error_detail
        assert Image.objects.get().nsfw == "unknown"

    def test_a_program_that_was_lost_is_started_again_and_nothing_is_missed(self, shown):
        images = [drawing(), drawing("star"), drawing("ring"), drawing("cross")]
        submit(images)
        shown.dies = lambda paths: len(shown.asked) == 2

        job = work()

        assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
        assert states(job) == ["labeled"] * 4
        assert shown.asked == [[0, 1], [2, 3], [2], [3]]

    def test_a_picture_that_the_program_dies_of_is_the_only_one_that_fails(self, shown):
        submit([drawing(), drawing("star"), drawing("ring")])
        shown.dies = lambda paths: 1 in paths

        job = work()

        assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
        assert states(job) == ["labeled", "failed", "labeled"]
        assert "ended at this picture" in LabelingItem.objects.get(state="failed").detail

    def test_a_program_that_dies_of_every_picture_is_lost_and_no_picture_is_blamed(self, shown, monkeypatch):
        monkeypatch.setattr(labeling_work, "MOST_DEATHS", 2)
        job = submit([drawing(), drawing("star")])
        shown.dies = lambda paths: True

        failed = work()

        assert (failed.status, failed.error_code, failed.attempt) == (JobStatus.FAILED, "labeler_died", 3)
        assert states(job) == ["waiting", "waiting"]

    def test_a_job_whose_time_is_up_goes_on_as_long_as_it_comes_further(self, monkeypatch):
        submit([drawing(), drawing("star"), drawing("ring"), drawing("cross")])
        store = labeling_work._Work._store

        def run_out_of_time(self, batch, found):
            store(self, batch, found)
            self._ends_at = 0.0

        monkeypatch.setattr(labeling_work._Work, "_store", run_out_of_time)

        job = work()

        assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
        assert states(job) == ["labeled"] * 4

    def test_a_job_whose_time_is_never_enough_fails(self, monkeypatch):
        job = submit([drawing()])
        begin = labeling_work._Work.__init__

        def begin_late(self, *args):
            begin(self, *args)
            self._ends_at = 0.0

        monkeypatch.setattr(labeling_work._Work, "__init__", begin_late)

        failed = work()

        assert (failed.status, failed.error_code, failed.attempt) == (JobStatus.FAILED, "labeler_timeout", 3)
        assert states(job) == ["waiting"]

    def test_what_is_said_after_the_job_was_taken_away_is_not_stored(self, monkeypatch):
        image = drawing()
        job = submit([image])
        ask = labeling_work._Work._ask

        def lose_the_job(self, paths):
            found = ask(self, paths)
            # What another worker that claims the job does to the row.
            LabelingJob.objects.filter(pk=job.pk).update(token=uuid.uuid4())
            return found

        monkeypatch.setattr(labeling_work._Work, "_ask", lose_the_job)

        assert work().status == JobStatus.RUNNING
        assert states(job) == ["waiting"]
        assert said(image) == []

    def test_a_running_job_is_cancelled_between_batches_and_keeps_what_it_has(self, monkeypatch):
        images = [drawing(), drawing("star"), drawing("ring")]
        job = submit(images)
        store = labeling_work._Work._store

        def cancel_after(self, batch, found):
            store(self, batch, found)
            with transaction.atomic():
                labeling.cancel_labeling(LabelingJob.objects.get(pk=job.pk))
            self.lease._last_beat = 0.0

        monkeypatch.setattr(labeling_work._Work, "_store", cancel_after)

        assert work().status == JobStatus.CANCELLED
        assert states(job) == ["labeled", "labeled", "waiting"]

    def test_a_cluster_that_stops_hands_the_job_back(self, monkeypatch):
        submit([drawing(), drawing("star"), drawing("ring")])
        store = labeling_work._Work._store

        def stop_after(self, batch, found):
            store(self, batch, found)
            stopping.request_stop()

        monkeypatch.setattr(labeling_work._Work, "_store", stop_after)

        job = work()

        assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)
        assert states(job) == ["labeled", "labeled", "waiting"]

    def test_an_album_is_all_it_takes(self):
        album = AlbumFactory(images=[drawing(), drawing("star")])
        submit(album.images.all())

        assert states(work()) == ["labeled", "labeled"]
