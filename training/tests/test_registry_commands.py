"""The commands that look for weights, and look at them."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from imagehub.accounts.models import AuditEntry
from imagehub.roots import models_root
from training.models import Adapter, BaseModel
from training.tests.factories import AdapterFactory
from training.tests.test_model_recognition import write_folder
from training.tests.weight_headers import write_sd1_adapter

pytestmark = pytest.mark.django_db


def run(*arguments, **options):
    """Return what a command printed, and whether it failed."""
    out = StringIO()
    try:
        call_command(*arguments, stdout=out, no_color=True, **options)
    except CommandError as error:
        return f"{out.getvalue()}{error}", error.returncode
    return out.getvalue(), 0


def test_scan_adapters_tells_what_became_of_each_file():
    write_sd1_adapter(models_root() / "loras" / "a.safetensors")
    (models_root() / "loras" / "b.safetensors").write_bytes(b"bad")
    gone = AdapterFactory(source="loras/gone.safetensors")

    text, code = run("scan_adapters")

    assert code == 1
    assert "added  loras/a.safetensors  a, Stable Diffusion 1" in text
    assert "refused  loras/b.safetensors  This is no .safetensors file." in text
    assert "1 added, 1 refused, 1 vanished." in text
    entry = AuditEntry.objects.get(action="adapter.disable")
    assert (entry.target_id, entry.via) == (str(gone.pk), "command")
    assert "not on this machine" in entry.after["reason"]


def test_scan_adapters_can_be_asked_first_and_by_programs():
    write_sd1_adapter(models_root() / "loras" / "a.safetensors")

    text, code = run("scan_adapters", dry_run=True, as_json=True)

    assert (code, Adapter.objects.count()) == (0, 0)
    assert json.loads(text)["counts"] == {"added": 1}
    assert run("scan_adapters", dry_run=True)[0].endswith("1 added. Nothing was changed.\n")
    assert run("scan_models")[0] == "Nothing found.\n"


def test_scan_models_registers_what_it_finds():
    write_folder(models_root() / "sd15")

    text, code = run("scan_models")

    assert (code, "added  sd15  sd15, Stable Diffusion 1" in text) == (0, True)
    assert BaseModel.objects.filter(name="sd15").exists()


def test_probe_models_says_what_they_are_and_fails_for_one_that_is_broken():
    write_folder(models_root() / "sd15")
    BaseModel.objects.create(name="a", kind="folder", source="sd15")
    BaseModel.objects.create(name="b", kind="folder", source="gone")

    assert run("probe_models", "a") == ("a: Stable Diffusion 1 StableDiffusionPipeline\n", 0)
    text, code = run("probe_models")
    assert (code, "b: Its weights are not on this machine." in text) == (1, True)
    assert run("probe_models", "nothing") == ("There is no base model nothing.", 1)
