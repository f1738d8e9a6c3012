"""Checkpoints that become adapters or are kept, purges, and where things come from."""

import json
import os
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.utils import timezone

from albums.image_lineage import image_node
from albums.lineage import Key, trace, walk_results
from albums.models import Image
from albums.tests.factories import ImageFactory
from imagehub import roots
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.in_use import in_use
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.operations import purges
from imagehub.operations.models import Purge
from training import tasks
from training.models import Adapter, BaseModel, Checkpoint, Sample, TrainingRun
from training.services import promoting, purging
from training.services.lineage import ADAPTER
from training.services.run_folders import cache_root, folder_of
from training.tests.factories import AdapterFactory, TrainingRunFactory
from training.tests.test_runs import write_checkpoint

pytestmark = pytest.mark.django_db


def checkpoint(run, step=4, **fields) -> Checkpoint:
    write_checkpoint(run, step)
    return Checkpoint.objects.create(run=run, step=step, sha256="0" * 64, size_bytes=7, **fields)


class TestPromotion:
    def test_makes_an_adapter_of_a_checkpoint(self, staff, exports, django_capture_on_commit_callbacks):
        exports()
        row = checkpoint(TrainingRunFactory(failed=True))
        url = f"/api/training/{row.run_id}/checkpoints/{row.pk}/promote"

        asked = staff.post(url, {"name": "the best"}, format="json")
        assert asked.status_code == 202
        assert asked.json()["promotion"] == {"state": "waiting", "problem": "", "adapter": None}
        assert asked.json()["is_pinned"] is False
        assert tasks.promote_waiting() == 1

        adapter = Adapter.objects.get()
        assert (adapter.name, adapter.owner) == ("the best", staff.user)
        assert (adapter.training_run_id, adapter.training_step) == (row.run_id, 4)
        [told] = staff.get(f"/api/training/{row.run_id}/checkpoints").json()["results"]
        assert told["promotion"] == {"state": "done", "problem": "", "adapter": str(adapter.pk)}
        assert staff.post(url).status_code == 200
        assert tasks.promote_waiting() == 0

    def test_that_fails_says_why_and_can_be_tried_again(self, staff, exports):
        exports(
            "Channel.from_environment().emit('error', code='x', detail='/srv/a/b is damaged.'); sys.exit(64)"
        )
        row = checkpoint(TrainingRunFactory(failed=True))
        promoting.promote_checkpoint(row, user=staff.user)
        assert tasks.promote_waiting() == 0
        row.refresh_from_db()
        assert (row.promotion, row.promotion_problem) == ("failed", "b is damaged.")

        exports()
        promoting.promote_checkpoint(row, user=staff.user)
        assert tasks.promote_waiting() == 1

    def test_of_one_whose_files_are_gone_is_refused(self, staff):
        row = checkpoint(TrainingRunFactory(failed=True), removed_at=timezone.now())

        answer = staff.post(f"/api/training/{row.run_id}/checkpoints/{row.pk}/promote")
        assert (answer.status_code, answer.json()["code"]) == (409, "checkpoint_gone")

    def test_a_checkpoint_of_another_run_is_not_found(self, staff):
        row = checkpoint(TrainingRunFactory(failed=True))
        other = TrainingRunFactory()

        assert staff.post(f"/api/training/{other.pk}/checkpoints/{row.pk}/promote").status_code == 404


def test_a_checkpoint_is_pinned_and_let_go(staff):
    row = checkpoint(TrainingRunFactory())
    url = f"/api/training/{row.run_id}/checkpoints/{row.pk}/pin"

    assert staff.post(url).json()["is_pinned"] is True
    assert staff.delete(url).json()["is_pinned"] is False
    assert AuditEntry.objects.filter(action="checkpoint.pin").count() == 2


def aged(run, days=40):
    TrainingRun.objects.filter(pk=run.pk).update(finished_at=timezone.now() - timedelta(days=days))
    return run


class TestPurge:
    def purge(self, days=30, **options):
        return purging.purge_artifacts(cutoff=timezone.now() - timedelta(days=days), **options)

    def test_deletes_all_of_a_run_that_ended_long_ago(self):
        run = aged(TrainingRunFactory(failed=True))
        row = checkpoint(run)
        (folder_of(run).images).mkdir()
        Sample.objects.create(
            run=run, step=4, index=0, prompt="a", seed=1, file_name="samples/a.png", width=8, height=8
        )

        freed = self.purge()

        assert (freed.runs, freed.checkpoints, freed.kept) == (1, 1, [])
        assert freed.bytes > 0
        assert not folder_of(run).root.exists()
        run.refresh_from_db()
        row.refresh_from_db()
        assert run.purged_at is not None
        assert row.removed_at is not None
        assert not run.samples.exists()

    @pytest.mark.parametrize("status", ["pending", "queued"])
    def test_leaves_what_has_not_ended_and_what_ended_lately(self, status):
        waiting = TrainingRunFactory(status=status, queued_at=timezone.now())
        lately = aged(TrainingRunFactory(failed=True), days=10)
        for run in (waiting, lately):
            checkpoint(run)

        assert self.purge().runs == 0
        assert all(folder_of(run).checkpoints.exists() for run in (waiting, lately))

    @pytest.mark.parametrize("fields", [{"is_pinned": True}, {"is_best": True}, {"promotion": "waiting"}])
    def test_leaves_what_is_pinned_best_or_in_use_with_what_it_needs(self, fields):
        run = aged(TrainingRunFactory(failed=True))
        checkpoint(run, 4, **fields)
        checkpoint(run, 8)
        folder = folder_of(run)
        folder.images.mkdir()
        folder.assignment.write_text("{}")

        freed = self.purge()

        assert (freed.runs, freed.checkpoints) == (0, 1)
        assert freed.kept == [{"run": str(run.pk), "steps": [4]}]
        assert sorted(path.name for path in folder.root.iterdir()) == ["checkpoints", "run.json"]
        assert [path.name for path in folder.checkpoints.iterdir()] == ["step-000004"]
        run.refresh_from_db()
        assert run.purged_at is None

    def test_a_rehearsal_deletes_nothing_and_tells_the_same(self):
        run = aged(TrainingRunFactory(failed=True))
        checkpoint(run)

        rehearsed = self.purge(is_dry_run=True)

        assert folder_of(run).checkpoints.exists()
        assert self.purge() == rehearsed

    def test_never_follows_a_link_out_of_the_training_root(self, tmp_path):
        outside = tmp_path / "elsewhere"
        outside.mkdir()
        (outside / "precious").write_text("x")
        linked, inner = aged(TrainingRunFactory(failed=True)), aged(TrainingRunFactory(failed=True))
        folder_of(linked).root.parent.mkdir(parents=True)
        folder_of(linked).root.symlink_to(outside)
        folder_of(inner).root.mkdir()
        (folder_of(inner).root / "link").symlink_to(outside)

        freed = self.purge()

        assert (freed.runs, freed.failed) == (1, 1)
        assert (outside / "precious").exists()
        assert not folder_of(inner).root.exists()

    def test_deletes_what_nobody_used_of_the_cache(self):
        cache_root().mkdir(parents=True)
        for name, age in (("old", 40), ("new", 1)):
            (cache_root() / name).write_text("x")
            then = (timezone.now() - timedelta(days=age)).timestamp()
            os.utime(cache_root() / name, (then, then))

        assert self.purge().cached_files == 1
        assert [path.name for path in cache_root().iterdir()] == ["new"]

    def test_is_asked_for_over_the_api_and_tells_what_came_of_it(self, staff):
        run = aged(TrainingRunFactory(failed=True))
        checkpoint(run)

        asked = staff.post("/api/training/artifacts/purge", {"older_than_days": 30}, format="json")
        assert (asked.status_code, asked.json()["state"]) == (202, "waiting")
        assert purges.purge_waiting(Cluster.DEFAULT) == 1

        told = staff.get(asked.headers["Location"]).json()
        assert (told["state"], told["result"]["runs"]) == ("done", 1)
        assert not folder_of(run).root.exists()
        assert AuditEntry.objects.filter(action="training.purge").exists()

    def test_is_rehearsed_and_done_by_the_command(self):
        run = aged(TrainingRunFactory(failed=True))
        checkpoint(run)

        def command(**options):
            output = StringIO()
            call_command("purge_training", stdout=output, **options)
            return output.getvalue()

        assert command(older_than=30, dry_run=True).startswith("Would delete 1 runs, 1 checkpoints")
        assert folder_of(run).root.exists()
        told = json.loads(command(older_than=30, as_json=True))
        assert (told["kind"], told["runs"], told["dry_run"]) == ("training", 1, False)
        assert not folder_of(run).root.exists()

    def test_goes_by_the_clock_where_that_is_configured(self, set_config):
        aged(TrainingRunFactory(failed=True))

        set_config("training: {retention_days: 0}")
        purges.see_to_purges()
        assert not Purge.objects.filter(kind="training").exists()
        set_config("training: {retention_days: 30}")
        Purge.objects.create(
            kind="training", origin="clock", older_than_days=30, due_on="2026-01-01", state="done"
        )
        purges.see_to_purges()
        assert Purge.objects.filter(kind="training").latest("due_on").result["runs"] == 1

    def test_stops_at_a_limit_with_what_ended_first_and_leaves_the_cache(self):
        first, second = (aged(TrainingRunFactory(failed=True), days=days) for days in (50, 40))
        for run in (first, second):
            checkpoint(run)
        cache_root().mkdir(parents=True)
        (cache_root() / "old").write_text("x")
        os.utime(cache_root() / "old", (0, 0))

        freed = self.purge(limit=1)

        assert (freed.runs, freed.cached_files) == (1, 0)
        assert [folder_of(run).root.exists() for run in (first, second)] == [False, True]


class TestLineage:
    @pytest.fixture
    def run(self):
        return TrainingRunFactory(failed=True)

    def test_leads_from_a_picture_to_the_run_to_the_adapter_and_back(self, run):
        adapter = AdapterFactory(training_run=run, training_step=4)
        image = run.dataset.images.first().image
        staff = UserFactory(staff=True)

        found = trace(image_node(image), staff, forwards=True)
        assert {Key("training_run", str(run.pk)), Key(ADAPTER, str(adapter.pk))} <= set(found.nodes)

        start = next(node for key, node in found.nodes.items() if key.kind == ADAPTER)
        origins = trace(start, staff)
        assert Key("image", str(image.pk)) in origins.nodes
        assert Key("base_model", str(run.base_model_id)) in origins.nodes

    def test_tells_outsiders_of_the_run_and_nothing_of_its_pictures(self, run):
        adapter = AdapterFactory(training_run=run)
        staff, visitor = UserFactory(staff=True), UserFactory()
        start = trace(image_node(run.dataset.images.first().image), staff, forwards=True).nodes[
            Key(ADAPTER, str(adapter.pk))
        ]

        found = trace(start, visitor)
        assert {key.kind for key in found.nodes} == {ADAPTER, "training_run", "base_model"}
        assert found.nodes[Key("training_run", str(run.pk))].details == {"status": "failed"}

    def test_a_takedown_reaches_runs_adapters_and_what_was_made_with_them(self, run):
        clone = TrainingRunFactory(cloned_from=run, dataset=run.dataset)
        adapter = AdapterFactory(training_run=run)
        made = ImageFactory(loras=[{"id": str(adapter.pk), "name": "x", "weight": 1.0}])
        image = run.dataset.images.first().image

        reached = {key for keys in walk_results([Key("image", str(image.pk))]) for key in keys}

        assert {
            Key("training_run", str(run.pk)), Key("training_run", str(clone.pk)), Key(ADAPTER, str(adapter.pk)),
        } <= reached  # fmt: skip
        assert made.pk

    def test_a_takedown_cancels_what_has_not_ended(self, run):
        from albums.lineage import quarantine

        waiting = TrainingRunFactory(queued=True)
        assert quarantine([Key("training_run", str(waiting.pk))], "a complaint") == 1
        waiting.refresh_from_db()
        assert (waiting.status, waiting.stop_mode) == (JobStatus.CANCELLED, "discard")
        assert quarantine([Key("training_run", str(waiting.pk))], "a complaint") == 0


class TestUses:
    def test_pictures_of_runs_that_have_not_ended(self):
        waiting, ended = TrainingRunFactory(), TrainingRunFactory(failed=True)
        pictures = {run: run.dataset.images.first().image_id for run in (waiting, ended)}

        assert set(in_use(Image, pictures.values())) == {pictures[waiting]}

    def test_base_models_that_were_trained_on(self):
        run = TrainingRunFactory(failed=True)

        assert set(in_use(BaseModel, [run.base_model_id])) == {run.base_model_id}

    def test_adapters_of_runs_that_are_about_to_be_completed(self):
        TrainingRunFactory(queued=True)
        run = TrainingRun.objects.claim(worker="w")
        theirs, other = AdapterFactory(training_run=run), AdapterFactory()

        assert set(in_use(Adapter, [theirs.pk, other.pk])) == {theirs.pk}


def test_the_training_root_is_where_all_of_it_lies():
    run = TrainingRunFactory()

    assert folder_of(run).root == roots.training_root() / "runs" / str(run.pk)
