"""The adapters of a job, in the order of their stack."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from albums.models import Album
from training.models import Adapter, BaseModel
from training.services import AdapterMissing, check_fits

Choice = tuple[Adapter, float | None]
"""An adapter and its weight; None is the adapter's own."""

MAX_ADAPTERS = 8


def stack_adapters(chosen: Sequence[Choice], base_model: BaseModel) -> list[dict[str, Any]]:
    """Return what a job keeps of its adapters: id, name and weight of each, in the order given.

    Raises:
        AdapterIncompatible: one of them does not fit the base model.
        AdapterMissing: the file of one is not on this machine.
    """
    for adapter, _ in chosen:
        check_fits(adapter, base_model)
    return [
        {
            "id": str(adapter.pk),
            "name": adapter.name,
            "weight": adapter.default_weight if weight is None else weight,
        }
        for adapter, weight in chosen
    ]


def adapters_of_template(template: Album) -> list[Choice]:
    """Return the adapters that a set names, which may have gone since.

    Raises:
        AdapterMissing: one of them is not there, or may not be used.
    """
    return [(adapter, float(lora["weight"])) for adapter, lora in find_adapters(template.loras)]


def find_adapters(loras: Sequence[Mapping[str, Any]]) -> list[tuple[Adapter, Mapping[str, Any]]]:
    """Return the enabled adapters that stored data names, each with what is said of it.

    Raises:
        AdapterMissing: some are not there, or may not be used; all of them are named.
    """
    wanted = [(as_id(lora.get("id")), lora) for lora in loras]
    rows = Adapter.objects.enabled().in_bulk([pk for pk, _ in wanted if pk]) if wanted else {}
    if missing := [str(lora.get("name") or lora.get("id")) for pk, lora in wanted if pk not in rows]:
        names = ", ".join(f"“{name[:100]}”" for name in missing)
        raise AdapterMissing(f"Adapters that are not here, or not enabled: {names}.")
    return [(rows[pk], lora) for pk, lora in wanted if pk]


def hold_adapters(loras: Sequence[Mapping[str, Any]]) -> None:
    """Keep adapters that a job is about to name from being deleted until the transaction ends.

    Raises:
        AdapterMissing: somebody deleted or disabled one of them in the meantime.
    """
    wanted = [pk for lora in loras if (pk := as_id(lora.get("id")))]
    if wanted:
        list(Adapter.objects.select_for_update(no_key=True).filter(pk__in=wanted).order_by("pk"))
        find_adapters(loras)


def as_id(value: Any) -> UUID | None:
    """Return what stored data calls an adapter as an id; None where no adapter was ever called so."""
    try:
        return UUID(str(value))
    except ValueError:
        return None
