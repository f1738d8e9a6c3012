"""Runs under supervision: however their program fares, the row tells the truth, and nothing is left running."""

import json
import subprocess
import sys
import time

import pytest
from django.db import OperationalError
from django.utils import timezone

from albums.models import Image
from imagehub.config import get_config
from imagehub.jobs import lease as lease_module
from imagehub.jobs import stopping
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.registry import Measured
from imagehub.jobs.tasks import answer_doorbell
from imagehub.storage import StorageUnreachable
from imagehub.tests.together import beside
from training.measures import measure_run, speed_of_run
from training.models import Adapter, Checkpoint, MetricPoint, Sample, TrainingRun
from training.services import datasets, runs, supervising
from training.services.recording import Recorder
from training.services.run_folders import file_in, folder_of
from training.tests.factories import TrainingRunFactory
from training.tests.test_runs import write_checkpoint

pytestmark = pytest.mark.django_db

WITHOUT_PATIENCE = """
storage: {minimum_free_bytes: 0}
training:
  idle_seconds: 2
  grace_seconds: 2
  phase_seconds: {train: 1, load: 10}
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch, set_config):
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(supervising, "LOOK_SECONDS", 0.05)
    set_config(WITHOUT_PATIENCE)


@pytest.fixture
def plays(monkeypatch):
    """Let a run be played in some way."""

    def play(way: str, *, answer: bool = True, program: str = "play_trainer", **fields) -> TrainingRun:
        monkeypatch.setattr(
            supervising,
            "command",
            lambda folder, config: [
                sys.executable, "-m", f"training.tests.programs.{program}", way, str(folder.root),
            ],
        )  # fmt: skip
        run = TrainingRunFactory(queued=True, **fields)
        if answer:
            answer_doorbell(Cluster.TRAINING)
            run.refresh_from_db()
        return run

    return play


def test_a_run_that_goes_well_is_completed_with_all_that_it_told(plays):
    run = plays("well", description="Stripes")

    assert (run.status, run.error_detail, run.progress, run.step) == (JobStatus.COMPLETED, "", 100, 10)
    assert (run.training_loss, run.base_loss, run.validation_loss) == (0.1, 1.5, 0.5)
    assert (run.phase, run.attempt, run.resumes) == ("", 1, 0)
    train = run.metrics.filter(kind="train").order_by("step")
    assert list(train.values_list("step", flat=True)) == list(range(1, 11))
    assert train[3].loss == 0.25
    assert train[3].learning_rate == 1e-4
    assert list(run.metrics.filter(kind="validation").values_list("step", "loss").order_by("step")) == [
        (0, 1.5), (4, 0.9), (8, 0.5), (10, 0.7),
    ]  # fmt: skip
    assert list(run.checkpoints.order_by("step").values_list("step", "is_best")) == [
        (4, False), (8, True), (10, False),
    ]  # fmt: skip
    assert run.samples.order_by("step").first().file_name == "samples/step-000004-0.png"
    assert run.facts["device"] == "cpu"
    assert run.facts["peak_memory_bytes"] == 5000
    assert run.facts["seconds"] == {"train": 0.3}
    assert measure_run(run) == Measured({"train": 0.3}, {"steps": 10})
    assert speed_of_run(run) == pytest.approx(1 / run.facts["seconds_per_step"])
    assert run.facts["changes"][0]["after"] is True
    assert run.facts["warnings"] == [{"code": "slow", "detail": "It became slow."}]


def test_its_adapter_can_be_used_at_once(plays):
    run = plays("well", description="Stripes")

    adapter = Adapter.objects.get()
    assert run.adapter == adapter
    assert (adapter.training_run, adapter.training_step) == (run, 10)
    assert (adapter.name, adapter.description) == (run.name, "Stripes")
    assert adapter.trigger_words == [run.trigger_word]
    assert adapter.owner == run.owner
    assert run.checkpoints.get(step=10).adapter == adapter
    assert not folder_of(run).images.exists()


def test_the_trainer_is_told_all_of_it(plays):
    run = plays("well", recipe={"rank": 7})

    told = json.loads(folder_of(run).assignment.read_text())
    assert told["recipe"]["rank"] == 7
    assert (told["run_id"], told["name"]) == (str(run.pk), run.name)
    assert len(told["token"]) == 36  # of the attempt: the row has none any more
    assert told["model"]["kind"] == "folder"
    assert (told["model_name"], told["architecture"]) == ("starter", "other")
    assert told["trigger_word"] == run.trigger_word
    assert json.loads(folder_of(run).manifest.read_text())["entries"][0]["bucket"] == [64, 64]


@pytest.mark.parametrize("way", ["crashes once", "is killed once"])
def test_a_lost_program_goes_on_from_its_checkpoint(plays, way):
    run = plays(way)

    assert run.status == JobStatus.COMPLETED
    assert (run.attempt, run.resumes) == (2, 1)
    assert list(run.metrics.filter(kind="train").order_by("step").values_list("step", flat=True)) == list(
        range(1, 11)
    )


def test_a_program_that_is_lost_again_and_again_fails_and_can_be_resumed(plays, monkeypatch):
    run = plays("crashes")

    assert (run.status, run.error_code, run.attempt) == (JobStatus.FAILED, "training_bug", 3)
    assert "run log" in run.error_detail
    assert not Adapter.objects.exists()

    run = runs.resume_run(run)
    assert run.status == JobStatus.QUEUED
    plays("well", answer=False)
    TrainingRun.objects.exclude(pk=run.pk).delete()
    answer_doorbell(Cluster.TRAINING)
    run.refresh_from_db()
    assert (run.status, run.attempt, run.error_code) == (JobStatus.COMPLETED, 4, "")


def test_what_would_fail_again_is_not_tried_again_and_says_why_without_a_path(plays):
    run = plays("refuses")

    assert (run.status, run.error_code, run.attempt) == (JobStatus.FAILED, "model_missing", 1)
    assert run.error_detail == "The model at unet is not there."


def test_numbers_out_of_range_end_it_and_its_checkpoints_stay(plays):
    run = plays("NaN")

    assert (run.status, run.error_code, run.attempt) == (JobStatus.FAILED, "not_a_number", 1)
    assert list(run.checkpoints.values_list("step", flat=True)) == [4]


def test_a_program_that_lives_and_does_nothing_is_found_out(plays):
    started = time.monotonic()
    run = plays("hangs", max_attempts=1)

    assert (run.status, run.error_code) == (JobStatus.FAILED, "training_hung")
    assert "“train”" in run.error_detail
    assert time.monotonic() - started < 15


def test_a_slow_step_is_not_taken_for_a_hang(plays, set_config):
    set_config(WITHOUT_PATIENCE.replace("train: 1", "train: 2"))

    assert plays("well").status == JobStatus.COMPLETED


def test_a_silent_program_is_ended(plays, set_config):
    set_config(WITHOUT_PATIENCE.replace("train: 1", "train: 60"))
    run = plays("silent", max_attempts=1)

    assert (run.status, run.error_code) == (JobStatus.FAILED, "training_silent")


def test_one_that_takes_too_long_saves_and_can_be_resumed(plays, set_config):
    set_config(WITHOUT_PATIENCE + "  wall_seconds: 2\n")
    run = plays("well", recipe={"steps": 500})

    assert (run.status, run.error_code, run.attempt) == (JobStatus.FAILED, "time_limit", 1)
    assert run.checkpoints.order_by("-step").first().step == run.facts["stopped"]["step"]


def test_what_a_program_leaves_behind_is_killed(plays):
    plays("forks", max_attempts=1)

    assert subprocess.run(["pgrep", "-f", "sleep 601.5"], capture_output=True).stdout == b""


def test_a_flood_is_survived(plays, set_config):
    set_config(WITHOUT_PATIENCE.replace("train: 1", "train: 60"))
    run = plays("floods")

    assert run.status == JobStatus.COMPLETED
    assert run.metrics.filter(kind="train").count() == 10


def test_damaged_lines_are_counted_and_believed_in_nothing(plays):
    run = plays("damaged")

    assert run.status == JobStatus.COMPLETED
    assert run.facts["foreign_lines"] == 3
    assert run.facts["malformed_events"] >= 9
    assert not Sample.objects.filter(step=6).exists()
    log = folder_of(run).log.read_text()
    assert "canary" not in log
    assert "abc-secret" not in log


def test_one_that_ends_without_a_result_has_none(plays):
    run = plays("no result", max_attempts=1)

    assert (run.status, run.error_code) == (JobStatus.FAILED, "no_result")


def later(act):
    """Do something once the run has made some steps."""

    def wait_and_act():
        for _ in range(400):
            if TrainingRun.objects.filter(step__gte=5).exists():
                break
            time.sleep(0.02)
        act()

    return beside(wait_and_act)


@pytest.mark.django_db(transaction=True)
class TestStopping:
    @pytest.fixture(autouse=True)
    def _patient(self, set_config):
        set_config(WITHOUT_PATIENCE)

    def test_stop_and_save_keeps_what_was_learned_and_the_run_can_go_on(self, plays):
        run = plays("well", answer=False, recipe={"steps": 300})
        thread = later(lambda: runs.cancel_run(TrainingRun.objects.get(pk=run.pk)))
        answer_doorbell(Cluster.TRAINING)
        thread.join()

        run.refresh_from_db()
        assert run.status == JobStatus.CANCELLED
        saved = run.facts["stopped"]
        assert saved["saved"] is True
        assert run.checkpoints.filter(step=saved["step"]).exists()

        run = runs.resume_run(run, steps=saved["step"] + 6)
        answer_doorbell(Cluster.TRAINING)
        run.refresh_from_db()
        assert (run.status, run.resumes, run.step) == (JobStatus.COMPLETED, 1, saved["step"] + 6)

    def test_discarding_saves_nothing(self, plays):
        run = plays("well", answer=False, recipe={"steps": 300})
        discard = TrainingRun.StopMode.DISCARD
        thread = later(lambda: runs.cancel_run(TrainingRun.objects.get(pk=run.pk), discard))
        answer_doorbell(Cluster.TRAINING)
        thread.join()

        run.refresh_from_db()
        assert run.status == JobStatus.CANCELLED
        assert run.facts["stopped"]["saved"] is False

    def test_one_that_does_not_listen_is_killed_after_its_grace_time(self, plays, set_config):
        set_config(WITHOUT_PATIENCE.replace("train: 1", "train: 60"))
        run = plays("ignores TERM", answer=False)
        thread = later(lambda: runs.cancel_run(TrainingRun.objects.get(pk=run.pk)))
        started = time.monotonic()
        answer_doorbell(Cluster.TRAINING)
        thread.join()

        run.refresh_from_db()
        assert run.status == JobStatus.CANCELLED
        assert time.monotonic() - started < 15

    def test_a_cluster_that_ends_has_it_saved_and_gives_it_back_uncounted(self, plays):
        run = plays("well", answer=False, recipe={"steps": 300})
        thread = later(stopping.request_stop)
        answer_doorbell(Cluster.TRAINING)
        thread.join()
        stopping.clear_stop()

        run.refresh_from_db()
        assert (run.status, run.attempt) == (JobStatus.QUEUED, 0)
        assert run.facts["stopped"]["saved"] is True

    def test_pins_reach_the_program_while_it_runs(self, plays):
        run = plays("well", answer=False, recipe={"steps": 60})
        thread = later(lambda: Checkpoint.objects.filter(run=run, step=4).update(is_pinned=True))
        answer_doorbell(Cluster.TRAINING)
        thread.join()

        assert json.loads(folder_of(run).assignment.read_text())["pinned"] == [4]

    def test_a_worker_that_was_given_up_writes_nothing_and_leaves_no_adapter(self, plays, monkeypatch):
        run = plays("well", answer=False)
        take_in = supervising._take_in

        def robbed(*args):
            TrainingRun.objects.filter(pk=run.pk).update(lease_until="2000-01-01T00:00:00Z")
            TrainingRun.objects.reap()
            take_in(*args)

        monkeypatch.setattr(supervising, "_take_in", robbed)
        job = TrainingRun.objects.claim(worker="w")
        with pytest.raises(lease_module.LeaseLost):
            supervising.train(job, lease_module.Lease(job))

        run.refresh_from_db()
        assert run.status == JobStatus.QUEUED
        assert not Adapter.objects.exists()

    def test_an_attempt_after_one_that_died_in_the_last_moment_finds_its_adapter(self, plays, monkeypatch):
        run = plays("well", answer=False)
        complete = lease_module.Lease.complete

        def dies(self, **changes):
            raise KeyboardInterrupt

        monkeypatch.setattr(lease_module.Lease, "complete", dies)
        job = TrainingRun.objects.claim(worker="w")
        with pytest.raises(KeyboardInterrupt):
            supervising.train(job, lease_module.Lease(job))
        monkeypatch.setattr(lease_module.Lease, "complete", complete)
        (adapter,) = Adapter.objects.all()
        TrainingRun.objects.filter(pk=run.pk).update(lease_until="2000-01-01T00:00:00Z")
        TrainingRun.objects.reap()
        answer_doorbell(Cluster.TRAINING)

        run.refresh_from_db()
        assert run.status == JobStatus.COMPLETED
        assert run.adapter == adapter == Adapter.objects.get()


def test_what_a_damaged_checkpoint_had_is_done_again(plays):
    run = plays("crashes", max_attempts=1)
    (folder_of(run).checkpoints / "step-000004" / "adapter.safetensors").write_bytes(b"something else")

    with pytest.raises(runs.NotResumable):
        runs.resume_run(run)


def test_metrics_behind_the_step_it_goes_on_from_are_forgotten(plays):
    run = plays("well", answer=False)
    for step in (3, 7, 99):
        MetricPoint.objects.create(run=run, kind="train", step=step, loss=1)
    Checkpoint.objects.create(run=run, step=99, sha256="0" * 64, size_bytes=1)
    answer_doorbell(Cluster.TRAINING)

    run.refresh_from_db()
    assert list(run.metrics.filter(kind="train").order_by("step").values_list("step", flat=True)) == list(
        range(1, 11)
    )
    assert run.checkpoints.get(step=99).removed_at is not None


def test_the_best_checkpoint_is_the_best_of_those_that_are_there():
    TrainingRunFactory(queued=True)
    run = TrainingRun.objects.claim(worker="w")
    recorder = Recorder(run, lease_module.Lease(run))

    def save(step, loss, removed=()):
        recorder.take(
            {"event": "checkpoint", "step": step, "sha256": "0" * 64, "size_bytes": 1, "validation_loss": loss,
             "is_best": False, "removed": list(removed)}
        )  # fmt: skip
        recorder.flush()

    def best():
        return list(run.checkpoints.filter(is_best=True).values_list("step", flat=True))

    save(4, 0.5)
    save(8, 0.7)
    assert best() == [4]
    save(12, 0.9, removed=[4])
    assert best() == [8]
    save(16, None)
    assert best() == [8]


def test_a_checkpoint_that_is_told_of_again_keeps_what_people_said_of_it():
    TrainingRunFactory(queued=True)
    run = TrainingRun.objects.claim(worker="w")
    recorder = Recorder(run, lease_module.Lease(run))
    event = {"event": "checkpoint", "step": 4, "sha256": "0" * 64, "size_bytes": 1, "validation_loss": 0.5}
    recorder.take(event)
    recorder.flush()
    run.checkpoints.update(is_pinned=True, promoted_as="the best", promotion="waiting")

    recorder.take(event | {"size_bytes": 2})
    recorder.flush()

    [row] = run.checkpoints.all()
    assert (row.is_pinned, row.promoted_as, row.promotion, row.size_bytes) == (True, "the best", "waiting", 2)


def test_what_nobody_was_left_to_write_down_is_found_in_the_folder():
    TrainingRunFactory(queued=True)
    run = TrainingRun.objects.claim(worker="w")
    for step in (4, 8):
        write_checkpoint(run, step)
    Checkpoint.objects.create(run=run, step=2, sha256="0" * 64, size_bytes=1)
    folder_of(run).metrics.write_text(
        "".join(json.dumps({"step": step, "loss": 1 / step, "seconds": 0.1}) + "\n" for step in range(1, 10))
        + json.dumps({"step": 0, "validation_loss": 1.5})
        + '\n{"step": 3, "lo'
    )
    MetricPoint.objects.create(run=run, kind="train", step=1, loss=7)
    recorder = Recorder(run, lease_module.Lease(run))

    recorder.take({"event": "started", "device": "cpu", "dtype": "float32", "resumed_from": 8})
    recorder.flush()

    train = run.metrics.filter(kind="train").order_by("step").values_list("step", "loss")
    assert list(train) == [(1, 7), *((step, 1 / step) for step in range(2, 9))]
    assert run.metrics.get(kind="validation").step == 0
    assert set(run.checkpoints.filter(removed_at=None).values_list("step", flat=True)) == {4, 8}


class TestTrouble:
    """What goes away by itself costs no training that goes well."""

    def test_a_moment_without_the_database(self, plays, monkeypatch):
        asked = []
        pinned = supervising._pinned

        def flaky(run):
            asked.append(run)
            if len(asked) == 2:  # the first time was before it began
                raise OperationalError("server closed the connection unexpectedly")
            return pinned(run)

        monkeypatch.setattr(supervising, "_pinned", flaky)

        run = plays("well")

        assert len(asked) >= 2
        assert (run.status, run.attempt, run.resumes) == (JobStatus.COMPLETED, 1, 0)

    def test_what_was_told_last_is_written_by_the_next_attempt_if_it_cannot_be_now(self, plays, monkeypatch):
        flush, failed = Recorder.flush, []

        def flaky(recorder):
            if recorder.failure and not failed:
                failed.append(recorder)
                raise OperationalError("server closed the connection unexpectedly")
            flush(recorder)

        monkeypatch.setattr(Recorder, "flush", flaky)

        run = plays("refuses")

        assert failed
        assert (run.status, run.error_code) == (JobStatus.FAILED, "model_missing")

    def test_another_trainer_that_is_still_there_is_not_its_fault(self, plays):
        run = plays("finds the folder busy once")

        assert (run.status, run.attempt, run.error_code) == (JobStatus.COMPLETED, 1, "")

    def test_a_moment_without_the_bucket(self, plays, monkeypatch):
        place, tried = datasets._place, []

        def flaky(*args, **kwargs):
            tried.append(args)
            if len(tried) == 1:
                raise StorageUnreachable("The bucket cannot be reached.")
            return place(*args, **kwargs)

        monkeypatch.setattr(datasets, "_place", flaky)

        run = plays("well")

        assert (run.status, run.attempt) == (JobStatus.COMPLETED, 2)


def test_pictures_that_are_taken_down_at_the_last_moment_leave_no_adapter_that_can_be_used(
    plays, monkeypatch
):
    import_adapter = supervising.import_adapter

    def just_before(*args, training_run, **kwargs):
        Image.objects.filter(pk=training_run.dataset.images.first().image_id).update(
            deleted_at=timezone.now()
        )
        return import_adapter(*args, training_run=training_run, **kwargs)

    monkeypatch.setattr(supervising, "import_adapter", just_before)

    run = plays("well")

    assert (run.status, run.error_code) == (JobStatus.FAILED, "missing_files")
    assert not Adapter.objects.enabled().exists()


HOSTILE = [
    10**400, -(10**400), 2**31, -1, 1e308, True, None, "a\0b", "\ud800", "copy", "x" * 10_000, [], [10**400], ["a"],
    {}, {"a\0": "b\0", "\ud800": 10**400},
]  # fmt: skip
EVENTS = [
    {"event": "started", "device": "cpu", "dtype": "float32", "resumed_from": 4, "versions": {}, "trainable_parameters": 1},
    {"event": "phase", "phase": "train", "done": 1, "total": 2},
    {"event": "step", "step": 3, "total": 10, "loss": 1.0, "loss_ema": 1.0, "learning_rate": 1.0, "grad_norm": 1.0,
     "seconds": 1.0, "eta_seconds": 1.0, "peak_memory_bytes": 1, "points": None},
    {"event": "validation", "step": 3, "loss": 1.0, "is_best": True},
    {"event": "checkpoint", "step": 4, "sha256": "0" * 64, "size_bytes": 1, "validation_loss": 1.0, "is_best": True,
     "removed": []},
    {"event": "warning", "code": "slow", "detail": "It is slow."},
    {"event": "changed", "code": "precision", "detail": "Less.", "before": 1, "after": 2},
    {"event": "stopped", "step": 3, "saved": True},
    {"event": "error", "code": "bug", "detail": "It broke."},
    {"event": "finished", "step": 10, "training_loss": 1.0, "seconds": {}, "peak_memory_bytes": 1, "best_step": 1},
]  # fmt: skip


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["event"])
def test_no_event_keeps_others_from_being_written(event, set_config):
    TrainingRunFactory(queued=True)
    run = TrainingRun.objects.claim(worker="w")
    recorder = Recorder(run, lease_module.Lease(run))
    limits = get_config().training.phase_seconds

    for name in event:
        for value in HOSTILE:
            recorder.take(event | {name: value})
            recorder.patience(limits)
            recorder.flush()

    recorder.take({"event": "validation", "step": 9, "loss": 0.5})
    recorder.flush()
    assert run.metrics.get(kind="validation", step=9).loss == 0.5


def test_a_checkpoint_may_be_larger_than_two_gigabytes():
    TrainingRunFactory(queued=True)
    run = TrainingRun.objects.claim(worker="w")
    recorder = Recorder(run, lease_module.Lease(run))

    recorder.take({"event": "checkpoint", "step": 4, "sha256": "0" * 64, "size_bytes": 5 * 2**30})
    recorder.flush()

    assert run.checkpoints.get().size_bytes == 5 * 2**30


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "../run.json", 7, None])
def test_a_file_that_cannot_be_is_none(name):
    run = TrainingRunFactory(queued=True)

    assert file_in(folder_of(run), name) is None


class TestSeveralProcesses:
    """What starts them ends with a status of its own, so that their last word counts."""

    @pytest.fixture(autouse=True)
    def _several(self, set_config):
        set_config(WITHOUT_PATIENCE.replace("training:", "training:\n  processes: 2"))

    def test_that_fail_for_good_are_not_tried_again(self, plays):
        run = plays("NaN", program="play_launcher")

        assert (run.status, run.error_code, run.attempt) == (JobStatus.FAILED, "not_a_number", 1)

    def test_that_are_lost_go_on(self, plays):
        run = plays("crashes once", program="play_launcher")

        assert (run.status, run.attempt) == (JobStatus.COMPLETED, 2)

    @pytest.mark.django_db(transaction=True)
    def test_that_stop_as_their_cluster_ends_are_given_back_uncounted(self, plays):
        run = plays("well", answer=False, program="play_launcher", recipe={"steps": 300})
        thread = later(stopping.request_stop)
        answer_doorbell(Cluster.TRAINING)
        thread.join()
        stopping.clear_stop()

        run.refresh_from_db()
        assert (run.status, run.attempt, run.error_code) == (JobStatus.QUEUED, 0, "")
        assert run.facts["stopped"]["saved"] is True
