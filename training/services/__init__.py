"""Everything that writes base models and adapters, and the failures it can meet."""

from training.services.adapters import (
    AdapterGone,
    AdapterMissing,
    AdapterRefused,
    delete_adapter,
    import_adapter,
    locate_adapter,
    set_adapter_preview,
    update_adapter,
)
from training.services.base_models import (
    BUNDLED,
    BaseModelGone,
    ModelMissing,
    NameTaken,
    add_base_model,
    delete_base_model,
    locate_base_model,
    probe_base_model,
    problem_on_this_machine,
    update_base_model,
)
from training.services.fits import AdapterIncompatible, adapters_that_fit, check_fits
from training.services.scanning import Outcome, scan_adapters, scan_base_models

__all__ = [
    "BUNDLED",
    "AdapterGone",
    "AdapterIncompatible",
    "AdapterMissing",
    "AdapterRefused",
    "BaseModelGone",
    "ModelMissing",
    "NameTaken",
    "Outcome",
    "adapters_that_fit",
    "add_base_model",
    "check_fits",
    "delete_adapter",
    "delete_base_model",
    "import_adapter",
    "locate_adapter",
    "locate_base_model",
    "probe_base_model",
    "problem_on_this_machine",
    "scan_adapters",
    "scan_base_models",
    "set_adapter_preview",
    "update_adapter",
    "update_base_model",
]
