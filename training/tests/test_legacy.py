import json
from contextlib import suppress
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from albums.models import Album
from albums.tests.legacy.old_system import HEAD, OldSystem
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus
from imagehub.tests.canaries import CANARY
from training.models import Adapter, BaseModel, Dataset, TrainingRun
from training.recipe import Recipe
from training.services import locate_adapter
from training.tests.weight_headers import write_sd1_adapter

pytestmark = pytest.mark.django_db

TRAINING_RUNS = """
    CREATE TABLE training_runs (
        id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL, description TEXT, dataset_path VARCHAR(500) NOT NULL,
        output_path VARCHAR(500) NOT NULL, training_config TEXT, status VARCHAR(50), progress INTEGER,
        final_checkpoint VARCHAR(500), training_loss FLOAT, validation_loss FLOAT, error_message TEXT,
        last_error_at DATETIME, created_at DATETIME, started_at DATETIME, completed_at DATETIME
    )
"""
OLD_FOLDER = "/mnt/speedy/imagineer/outputs/training/run_1"
CONFIG = {
    "steps": 1500,
    "rank": 8,
    "alpha": 32,
    "learning_rate": 0.0001,
    "warmup_steps": 100,
    "gradient_accumulation_steps": 4,
    "random_flip": True,
    "center_crop": False,
}


@pytest.fixture
def old(tmp_path):
    return OldSystem(tmp_path / "old", [*HEAD, TRAINING_RUNS])


@pytest.fixture
def owner():
    return UserFactory(staff=True, username="ada")


def add_run(old, **values):
    values = {
        "name": "hearts",
        "dataset_path": f"{OLD_FOLDER}/dataset",
        "output_path": OLD_FOLDER,
        "training_config": json.dumps(CONFIG),
        "status": "completed",
        "progress": 100,
    } | values
    return old.add("training_runs", **values)


def import_legacy(old, **options):
    """Run the command; return its report of the training runs, which adds up."""
    output = StringIO()
    with suppress(CommandError):  # that rows were refused: the report tells which
        call_command("import_legacy", old.path, media=old.media, json=True, stdout=output, **options)
    report = json.loads(output.getvalue())
    assert report["adds_up"]
    assert CANARY not in output.getvalue()
    return report["tables"]["training_runs"]


def counts(table):
    return table["found"], table["imported"], table["already_there"], table["refused"]


def test_a_run_comes_over_as_it_ended(old, owner):
    album = old.add_album("cards")
    add_run(
        old,
        description="All hearts",
        training_config=json.dumps(CONFIG | {"album_ids": [album]}),
        training_loss=0.08,
        started_at="2025-10-30 18:00:00",
        completed_at="2025-10-30 19:30:00.5",
        created_at="2025-10-30 17:00:00",
    )

    table = import_legacy(old, owner="ada")

    assert counts(table) == (1, 1, 0, 0)
    run = TrainingRun.objects.get()
    assert (run.name, run.description, run.owner) == ("hearts", "All hearts", owner)
    assert (run.status, run.progress, run.training_loss) == (JobStatus.COMPLETED, 100, 0.08)
    assert (run.step, run.total_steps) == (1500, 1500)
    assert run.started_at == datetime(2025, 10, 30, 18, tzinfo=UTC)
    assert run.finished_at == run.purged_at == datetime(2025, 10, 30, 19, 30, 0, 500_000, tzinfo=UTC)
    recipe = Recipe.model_validate_json(json.dumps(run.config))
    assert (recipe.steps, recipe.rank, recipe.alpha, recipe.center_crop) == (1500, 8, 32.0, False)
    assert run.config_sha256 == recipe.digest()
    assert run.dataset.albums == [{"id": str(Album.objects.get().pk), "name": "cards"}]
    assert run.dataset.images.count() == 0
    assert (run.base_model.source, run.base_model.is_enabled) == ("runwayml/stable-diffusion-v1-5", False)


@pytest.mark.parametrize(("status", "step"), [("completed", 1500), ("failed", None), ("running", None)])
def test_an_adapter_is_of_the_last_step_or_of_one_that_nobody_knows(old, owner, status, step):
    write_sd1_adapter(old.media / "training" / "run_1" / "hearts.safetensors", mark="hearts")
    add_run(old, status=status, progress=40, final_checkpoint=f"{OLD_FOLDER}/hearts.safetensors")

    import_legacy(old, owner="ada")

    assert Adapter.objects.get().training_step == step


def test_its_adapter_comes_along_where_its_file_is_there(old, owner):
    file = write_sd1_adapter(old.media / "training" / "run_1" / "hearts.safetensors", mark="hearts")
    before = file.read_bytes()
    add_run(old, final_checkpoint=f"{OLD_FOLDER}/hearts.safetensors")

    import_legacy(old, owner="ada")

    run, adapter = TrainingRun.objects.get(), Adapter.objects.get()
    assert run.adapter == adapter
    assert (adapter.training_run, adapter.name, adapter.owner) == (run, "hearts", owner)
    assert locate_adapter(adapter).read_bytes() == before
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (None, "adapter whose file is not there, left out"),
        (b"\x80\x02}q\x00.", "adapter that is none, left out"),
    ],
)
def test_a_run_comes_without_an_adapter_that_is_none(old, owner, content, note):
    if content is not None:
        old.write("training/run_1/lora_weights.safetensors", content)
    add_run(old, final_checkpoint=f"{OLD_FOLDER}/lora_weights.safetensors")

    table = import_legacy(old, owner="ada")

    assert counts(table) == (1, 1, 0, 0)
    assert table["notes"] == {note: 1}
    assert TrainingRun.objects.get().adapter is None
    assert not Adapter.objects.exists()


def test_an_adapter_that_was_imported_before_is_not_there_twice(old, owner):
    write_sd1_adapter(old.media / "training" / "run_1" / "hearts.safetensors")
    for name in ("first", "second"):
        add_run(old, name=name, final_checkpoint=f"{OLD_FOLDER}/hearts.safetensors")

    import_legacy(old, owner="ada")

    adapter = Adapter.objects.get()
    assert adapter.training_run.name == "first"
    assert {run.adapter for run in TrainingRun.objects.all()} == {adapter}


def test_what_failed_keeps_its_error_for_staff(old, owner):
    add_run(old, status="failed", progress=40, error_message=f"exited with code 1 in {OLD_FOLDER}")

    import_legacy(old, owner="ada")

    run = TrainingRun.objects.get()
    assert (run.status, run.progress, run.error_code) == (JobStatus.FAILED, 40, "imported")
    assert OLD_FOLDER not in run.error_detail
    assert OLD_FOLDER in run.error_trace


@pytest.mark.parametrize("status", ["pending", "queued", "running", "cleaned_up", None])
def test_what_had_not_ended_counts_as_cancelled(old, owner, status):
    add_run(old, status=status, progress=20)

    table = import_legacy(old, owner="ada")

    assert TrainingRun.objects.get().status == JobStatus.CANCELLED
    assert table["notes"] == {"run that had not ended, made cancelled": 1}


@pytest.mark.parametrize(
    "config", ["{", "[]", None, '{"steps": 0}', '{"alpha": 1e99, "steps": "x", "rank": true}']
)
def test_a_configuration_that_says_nothing_is_the_default(old, owner, config):
    add_run(old, training_config=config)

    assert counts(import_legacy(old, owner="ada")) == (1, 1, 0, 0)
    assert TrainingRun.objects.get().config["steps"] == Recipe().steps


def test_values_that_no_column_holds_are_left_out(old, owner):
    add_run(
        old,
        name="x" * 300,
        training_loss="NaN",
        validation_loss="1e400",
        progress=700,
        created_at="yesterday",
    )

    assert counts(import_legacy(old, owner="ada")) == (1, 1, 0, 0)
    run = TrainingRun.objects.get()
    assert (len(run.name), run.training_loss, run.validation_loss) == (200, None, None)


def test_an_import_is_repeated_without_a_second_run(old, owner):
    write_sd1_adapter(old.media / "training" / "run_1" / "hearts.safetensors")
    add_run(old, final_checkpoint=f"{OLD_FOLDER}/hearts.safetensors")
    import_legacy(old, owner="ada")
    add_run(old, name="another")

    assert counts(import_legacy(old, owner="ada")) == (2, 1, 1, 0)
    assert (TrainingRun.objects.count(), Dataset.objects.count(), Adapter.objects.count()) == (2, 2, 1)
    assert BaseModel.objects.filter(source="runwayml/stable-diffusion-v1-5").count() == 1


def test_a_dry_run_tells_the_same_and_writes_nothing(old, owner):
    write_sd1_adapter(old.media / "training" / "run_1" / "hearts.safetensors")
    add_run(old, final_checkpoint=f"{OLD_FOLDER}/hearts.safetensors")
    add_run(old, status="running", final_checkpoint=f"{OLD_FOLDER}/gone.safetensors")

    rehearsed = import_legacy(old, owner="ada", dry_run=True)
    for model in (TrainingRun, Dataset, Adapter):
        assert not model.objects.exists()

    assert import_legacy(old, owner="ada") == rehearsed


def test_without_an_owner_runs_are_refused_and_come_later(old, owner):
    add_run(old)

    table = import_legacy(old)
    assert counts(table) == (1, 0, 0, 1)
    assert table["reasons"] == {"no_owner": 1}

    assert counts(import_legacy(old, owner="ada")) == (1, 1, 0, 0)
