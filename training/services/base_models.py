"""Base models: where their weights are, what they are, and the rows that say so."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.utils import timezone

from imagehub.accounts import audit
from imagehub.config import get_config
from imagehub.errors import Conflict, Invalid, NotReady
from imagehub.in_use import InUse, in_use
from training.models import BaseModel
from training.services.places import place_of
from training.starter import MODEL_DIR
from training.weights import ModelFacts, recognise_model

BUNDLED = {"starter": MODEL_DIR}

HUB_ID = re.compile(r"[A-Za-z0-9](?:[\w-]|\.(?!\.)){0,95}/[A-Za-z0-9](?:[\w-]|\.(?!\.)){0,95}", re.ASCII)

NOT_HERE = "Its weights are not on this machine."
FOUND = ("architecture", "pipeline", "size_bytes", "problem", "probed_at")
"""What a look at the files fills in."""
PLACE = frozenset({"kind", "source"})
"""What says where the weights are."""


class ModelMissing(NotReady):
    code = "model_missing"
    title = "The weights of the base model are not on this machine"


class NameTaken(Conflict):
    code = "name_taken"
    title = "The name is taken"


class BaseModelGone(Conflict):
    code = "base_model_gone"
    title = "The base model has been deleted"


def locate_base_model(model: BaseModel) -> dict[str, Any]:
    """Return what a child program needs to load a model: its ``kind``, ``source`` and ``allow_download``.

    Raises:
        ModelMissing: a local model whose weights are not there, or lie outside the models root.
    """
    if model.kind == BaseModel.Kind.HUB:
        return {"kind": "hub", "source": model.source, "allow_download": get_config().engine.allow_downloads}
    path = path_of_base_model(model)
    if path is None:
        raise ModelMissing(f"The weights of the base model “{model}” are not on this machine.")
    is_file = path.is_file()  # its tokenizer and configuration may have to come from the hub
    return {
        "kind": "file" if is_file else "folder",
        "source": str(path),
        "allow_download": is_file and get_config().engine.allow_downloads,
    }


def path_of_base_model(model: BaseModel) -> Path | None:
    """Return where the weights of a local model are; None: nowhere on this machine."""
    if model.kind == BaseModel.Kind.HUB:
        return None
    path = BUNDLED.get(model.source) if model.kind == BaseModel.Kind.BUNDLED else place_of(model.source)
    return path if path is not None and path.exists() else None


def problem_on_this_machine(model: BaseModel) -> str:
    """Return why a base model cannot be used on this machine, as far as a look at its files can tell; mostly nothing."""
    return _facts_of(model).problem


def add_base_model(model: BaseModel, *, keeps_size: bool = False) -> BaseModel:
    """Save a new base model after a look at its files.

    One whose files are not on this machine is taken, because another machine may have them; the row says so.

    Args:
        model: unsaved, with its name, kind and source.
        keeps_size: whether its default width and height are meant, and not to be what it was trained on.

    Raises:
        Invalid: the source leads nowhere that models may lie, or what lies there cannot be used.
        NameTaken: another one has the name.
        ValidationError: a field is out of range.
    """
    look_at_base_model(model, keeps_size=keeps_size)
    _save(model, force_insert=True)
    return model


def look_at_base_model(model: BaseModel, *, keeps_size: bool = False) -> None:
    """Do all of :func:`add_base_model` but save: the files are read with no transaction open.

    Raises:
        Invalid, ValidationError: see there.
    """
    facts = _look_at(model)
    if facts.side and not keeps_size:
        model.default_width = model.default_height = facts.side
    model.full_clean(validate_unique=False)


def update_base_model(model: BaseModel, **changes: Any) -> BaseModel:
    """Change fields of a base model, and look again if it is to be found elsewhere. Others stay as others left them.

    Whatever it made says that it was made with it, so one that is used stays the weights that it is. Not to be called with
    a transaction open: files are read before the row is held.

    Raises:
        BaseModelGone: somebody deleted it in the meantime.
        Conflict: somebody else let it be found elsewhere in the meantime.
        InUse: it is to be found elsewhere, and something was made with it.
        Invalid, NameTaken, ValidationError: see :func:`add_base_model`.
    """
    seen = BaseModel.objects.filter(pk=model.pk).first()
    if seen is not None and _apply(seen, changes, only=PLACE):
        seen.architecture = changes.get("architecture", seen.architecture)
        _look_at(seen)
    with transaction.atomic():
        current = BaseModel.objects.select_for_update().filter(pk=model.pk).first()
        if current is None or seen is None:
            raise BaseModelGone("The base model has been deleted.")
        fields = _apply(current, changes)
        if (current.kind, current.source) != (seen.kind, seen.source):
            raise Conflict("Somebody else has changed where the base model is found. Try again.")
        if PLACE.intersection(fields):
            if reasons := in_use(BaseModel, [current.pk]):
                told = " ".join(sorted(set(reasons.values())))
                raise InUse(f"Where it is found stays. {told} Other weights are another base model: add one.")
            for name in FOUND:
                setattr(current, name, getattr(seen, name))
            fields = list(dict.fromkeys([*fields, *FOUND]))
        current.full_clean(validate_unique=False)
        if fields:
            _save(current, update_fields=fields)
        else:  # that somebody asked for it belongs into the audit trail all the same
            audit.record("basemodel.change", current)
    return current


def _apply(model: BaseModel, changes: Mapping[str, Any], *, only: Collection[str] | None = None) -> list[str]:
    """Set what differs on a row, and return the names of it."""
    fields = [
        name
        for name, value in changes.items()
        if (only is None or name in only) and getattr(model, name) != value
    ]
    for name in fields:
        setattr(model, name, changes[name])
    return fields


def probe_base_model(model: BaseModel) -> BaseModel:
    """Look at the files of a base model, and note what they are and what is wrong with them.

    Raises:
        BaseModelGone: somebody deleted it in the meantime.
    """
    _note(model, _facts_of(model))
    with transaction.atomic():
        if not BaseModel.objects.select_for_update().filter(pk=model.pk).exists():
            raise BaseModelGone("The base model has been deleted.")
        model.save(update_fields=FOUND)
    return model


def delete_base_model(model: BaseModel) -> None:
    """Delete the row of a base model. Its files are the operator's, and stay.

    Raises:
        InUse: jobs name it.
    """
    with transaction.atomic():
        if reasons := in_use(BaseModel, [model.pk]):
            raise InUse(" ".join(sorted(set(reasons.values()))))
        try:
            model.delete()
        except ProtectedError as error:
            raise InUse("Jobs have used it. Disable it instead.") from error


def _look_at(model: BaseModel) -> ModelFacts:
    """Check where a model is said to be, and fill in what it is.

    Raises:
        Invalid: no model may lie there, or what does cannot be used.
    """
    _check_source(model)
    facts = _facts_of(model)
    _note(model, facts)
    if model.problem and model.problem != NOT_HERE:
        raise Invalid(model.problem, pointer="/source", code="unsupported_model")
    return facts


def _check_source(model: BaseModel) -> None:
    if model.kind == BaseModel.Kind.HUB:
        if not HUB_ID.fullmatch(model.source):
            raise Invalid("A hub id is written as organisation/name.", pointer="/source")
    elif model.kind == BaseModel.Kind.BUNDLED:
        if model.source not in BUNDLED:
            raise Invalid(f"What ships with ImageHub is called {', '.join(BUNDLED)}.", pointer="/source")
    elif not model.source or Path(model.source).is_absolute() or place_of(model.source) is None:
        raise Invalid("It is a path under the models root, relative to it.", pointer="/source")


def _facts_of(model: BaseModel) -> ModelFacts:
    if model.kind == BaseModel.Kind.HUB:  # it may be on another machine, or be fetched with the first job
        return ModelFacts()
    path = path_of_base_model(model)
    if path is None:
        return ModelFacts(problem=NOT_HERE)
    if model.kind == BaseModel.Kind.FOLDER and not path.is_dir():
        return ModelFacts(problem="It is no folder.")
    if model.kind == BaseModel.Kind.FILE and not path.is_file():
        return ModelFacts(problem="It is no file.")
    try:
        return recognise_model(path)
    except OSError:
        return ModelFacts(problem="Its files cannot be read.")


def _note(model: BaseModel, facts: ModelFacts) -> None:
    model.architecture = facts.family or model.architecture  # what staff say holds where nothing is seen
    model.pipeline = facts.pipeline[: BaseModel._meta.get_field("pipeline").max_length]
    model.problem = facts.problem
    model.size_bytes = facts.size_bytes or None
    model.probed_at = timezone.now()


def _save(model: BaseModel, **options: Any) -> None:
    try:
        with transaction.atomic():
            model.save(**options)
    except IntegrityError as error:
        if BaseModel.objects.filter(name=model.name).exclude(pk=model.pk).exists():
            raise NameTaken(f"There is a base model “{model.name}” already.") from error
        raise ValidationError("A value is out of range.") from error
