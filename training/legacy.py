"""Training runs of the system before. ``import_legacy`` runs this after albums and images: see ``albums.legacy.registry``."""

import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from pydantic import ValidationError as BadRecipe

from albums.batches import in_batches
from albums.legacy import LegacyRun, values
from albums.legacy.files import FileRefused
from albums.legacy.source import Row, key_of
from imagehub.errors import ImageHubError
from imagehub.jobs.models import JobStatus
from training.datasets.manifest import manifest
from training.models import Adapter, Architecture, BaseModel, Dataset, TrainingRun
from training.recipe import Recipe
from training.services.adapters import facts_of_file, import_adapter

TABLE = "training_runs"
COLUMNS = (
    "id", "name", "description", "training_config", "status", "progress", "final_checkpoint", "training_loss",
    "validation_loss", "error_message", "created_at", "started_at", "completed_at", "last_error_at",
)  # fmt: skip
BATCH = 100
LONGEST_NAME = TrainingRun._meta.get_field("name").max_length or 0
LONGEST_DETAIL = TrainingRun._meta.get_field("error_detail").max_length or 0
LARGEST_LOSS = 1e9

BASE_MODEL = "runwayml/stable-diffusion-v1-5"
"""What the system before trained on, whatever else it could be configured to load."""
BASE_MODEL_NAME = "legacy-stable-diffusion-v1-5"

ENDED: dict[str, JobStatus] = {
    "completed": JobStatus.COMPLETED,
    "failed": JobStatus.FAILED,
    "cancelled": JobStatus.CANCELLED,
}

WHOLE_NUMBERS = {"steps", "rank", "warmup_steps", "gradient_accumulation_steps", "batch_size", "resolution"}
NUMBERS = {"alpha", "learning_rate"}
FLAGS = {"random_flip", "center_crop"}


def import_runs(run: LegacyRun) -> None:
    """Import training runs as finished ones: for the record, and with the adapters that came out of them.

    What pictures they learned from is not known any more, only from which albums. Their files are gone, so none of them goes
    on; the adapter is taken in where its file is found and is one that the engine loads.
    """
    table = run.report.table(TABLE) if TABLE in run.source.tables() else None
    if table is None:
        return
    for rows in in_batches(run.source.rows(TABLE, COLUMNS), BATCH):
        keys = {row["id"]: key_of(TABLE, row, name=values.text(row["name"])) for row in rows}
        there = set(TrainingRun.objects.filter(pk__in=keys.values()).values_list("pk", flat=True))
        for row in rows:
            table.found += 1
            if keys[row["id"]] in there:
                table.already_there += 1
            elif run.owner is None:
                run.refuse(TABLE, row["id"], "no_owner", "A run is somebody's: name a user with --owner.")
            else:
                _import(row, keys[row["id"]], run)


def _import(row: Row, key: uuid.UUID, run: LegacyRun) -> None:
    table = run.report.table(TABLE)
    file = _file_of(row, run)
    config = _config(row, table.notes)
    recipe = _recipe(config, table.notes)
    ending = _how_it_ended(row, table.notes)
    trained = TrainingRun(
        pk=key,
        owner=run.owner,
        name=values.text(row["name"]).strip()[:LONGEST_NAME] or f"Run {row['id']}",
        description=values.text(row["description"]),
        config=recipe.model_dump(mode="json"),
        config_sha256=recipe.digest(),
        training_loss=values.real_number(row["training_loss"], least=-LARGEST_LOSS, most=LARGEST_LOSS),
        validation_loss=values.real_number(row["validation_loss"], least=-LARGEST_LOSS, most=LARGEST_LOSS),
        total_steps=recipe.steps,
        step=recipe.steps if ending["status"] == JobStatus.COMPLETED else 0,
        facts={"imported": True},
        **ending,
    )
    try:
        trained.clean_fields(exclude=["owner", "base_model", "dataset", "adapter"])
        if not run.dry_run:
            _save(trained, _albums_of(config, run), file, run)
    except ValidationError as error:
        run.refuse(TABLE, row["id"], "invalid", f"Not valid: {', '.join(error.message_dict)}.")
        return
    except IntegrityError:  # another run was faster
        table.already_there += 1
        return
    table.imported += 1


def _save(trained: TrainingRun, albums: list[dict[str, str]], file: Path | None, run: LegacyRun) -> None:
    """Write a run with all that belongs to it. Its adapter comes first, as its file does."""
    adapter = _adapter(trained, file, run) if file is not None else None
    with transaction.atomic():
        trained.base_model = _base_model()
        trained.dataset = Dataset.objects.create(
            owner=trained.owner,
            sha256=manifest(()).digest(),
            albums=albums,
            created_at=trained.created_at,
        )
        trained.adapter = adapter
        trained.save(force_insert=True)
        if adapter is not None:
            Adapter.objects.filter(pk=adapter.pk, training_run=None).update(
                training_run=trained, training_step=trained.step or None
            )


def _adapter(trained: TrainingRun, file: Path, run: LegacyRun) -> Adapter:
    copy = run.staging / f"{uuid.uuid4().hex}.safetensors"
    shutil.copyfile(file, copy)  # whoever takes an adapter in takes its file along, and theirs are only read
    try:
        adapter, _ = import_adapter(
            copy, name=trained.name, file_name=file.name, owner=trained.owner, description=trained.description
        )
    finally:
        copy.unlink(missing_ok=True)
    return adapter


def _file_of(row: Row, run: LegacyRun) -> Path | None:
    """Return the file of a run's adapter; None where there is none that the engine loads, which the report tells."""
    notes = run.report.table(TABLE).notes
    written = values.text(row["final_checkpoint"]).strip()
    if not written:
        return None
    try:
        file = run.files.find(written)
        facts_of_file(file)
    except FileRefused:
        notes["adapter whose file is not there, left out"] += 1
        return None
    except (ImageHubError, OSError):  # most of theirs were pickles by the name of safetensors
        notes["adapter that is none, left out"] += 1
        return None
    return file


def _config(row: Row, notes: Counter[str]) -> Mapping[str, Any]:
    try:
        config = values.parsed(row["training_config"])
    except ValueError:
        config = None
    if not isinstance(config, dict):
        notes["configuration that cannot be read, taken as the default"] += 1
        return {}
    return config


def _recipe(config: Mapping[str, Any], notes: Counter[str]) -> Recipe:
    """Return the recipe that a run was given, as far as it had words for it."""
    asked: dict[str, Any] = {}
    for name in WHOLE_NUMBERS:
        asked[name] = values.whole_number(config.get(name), least=0, most=10**9)
    for name in NUMBERS:
        asked[name] = values.real_number(config.get(name), least=0, most=10**9)
    for name in FLAGS:
        asked[name] = values.flag(config.get(name))
    try:
        return Recipe(
            validation_share=0.0, **{name: value for name, value in asked.items() if value is not None}
        )
    except BadRecipe:
        notes["configuration that is no recipe, taken as the default"] += 1
        return Recipe(validation_share=0.0)


def _how_it_ended(row: Row, notes: Counter[str]) -> dict[str, Any]:
    """Return status and times. What had not ended there has no one to end it, and counts as cancelled."""
    status = ENDED.get(values.text(row["status"]).strip().lower())
    if status is None:
        notes["run that had not ended, made cancelled"] += 1
        status = JobStatus.CANCELLED
    created = values.moment(row["created_at"])
    if created is None:
        notes["time that cannot be read, taken as now"] += 1
        created = timezone.now()
    started = values.moment(row["started_at"])
    finished: datetime = (
        values.moment(row["completed_at"]) or values.moment(row["last_error_at"]) or started or created
    )
    progress = values.whole_number(row["progress"], least=0, most=100) or 0
    failure = {}
    if status == JobStatus.FAILED:
        # What stands there names folders of the machine that it was on.
        failure = {
            "error_code": "imported",
            "error_detail": "It failed in the system before.",
            "error_trace": values.text(row["error_message"])[:LONGEST_DETAIL],
        }
    return {
        "status": status,
        "progress": 100 if status == JobStatus.COMPLETED else progress,
        "created_at": created,
        "queued_at": created,
        "started_at": started,
        "finished_at": max(finished, created),
        "purged_at": max(finished, created),
        **failure,
    }


def _albums_of(config: Mapping[str, Any], run: LegacyRun) -> list[dict[str, str]]:
    """Return the albums that a run learned from, by the ids that they have here."""
    listed = config.get("album_ids")
    wanted = {value for value in listed if isinstance(value, int)} if isinstance(listed, list) else set()
    if not wanted:
        return []
    rows = run.source.rows("albums", ("id", "name", "created_at"))
    return [
        {
            "id": str(key_of("albums", row, name=values.text(row["name"]))),
            "name": values.text(row["name"]).strip(),
        }
        for row in rows
        if row["id"] in wanted
    ]


def _base_model() -> BaseModel:
    """Return the row of what was trained on. Where nobody has one, it is made, and not to be used before somebody enables it."""
    known = BaseModel.objects.filter(source=BASE_MODEL).order_by("created_at").first()
    if known is not None:
        return known
    model, _ = BaseModel.objects.get_or_create(
        name=BASE_MODEL_NAME,
        defaults={
            "kind": BaseModel.Kind.HUB,
            "source": BASE_MODEL,
            "architecture": Architecture.SD1,
            "is_enabled": False,
        },
    )
    return model
