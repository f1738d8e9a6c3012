"""Base models: looked at when they come, when they move, and when somebody asks."""

import json

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction

from imagehub import in_use
from imagehub.accounts.tests.factories import UserFactory
from imagehub.errors import Conflict, Invalid
from imagehub.in_use import InUse
from imagehub.roots import models_root
from training import services
from training.models import BaseModel, Dataset, TrainingRun
from training.services import NameTaken, add_base_model, base_models, probe_base_model, scan_base_models
from training.tests.test_model_recognition import CROSS, WHOLE, write_folder
from training.tests.weight_headers import write_header, write_sd1_adapter
from training.weights import recognise_model

pytestmark = pytest.mark.django_db


def folder(name="sd15", **options):
    write_folder(models_root() / name, **options)
    return BaseModel(name=name, kind=BaseModel.Kind.FOLDER, source=name)


def file(name="sdxl", width=2048):
    write_header(models_root() / f"{name}.safetensors", WHOLE | {CROSS: (320, width)})
    return BaseModel(name=name, kind=BaseModel.Kind.FILE, source=f"{name}.safetensors")


def test_what_its_files_say_is_filled_in():
    model = add_base_model(folder())

    model.refresh_from_db()
    assert (model.architecture, model.pipeline, model.problem) == ("sd1", "StableDiffusionPipeline", "")
    assert (model.default_width, model.default_height) == (512, 512)
    assert model.size_bytes > 0
    assert model.probed_at is not None


def test_of_the_starter_is_said_what_a_look_finds():
    starter = BaseModel.objects.get(name="starter")
    said = (starter.architecture, starter.pipeline, starter.default_width, starter.default_height)

    probe_base_model(starter)

    starter.refresh_from_db()
    assert (starter.architecture, starter.pipeline, starter.default_width, starter.default_height) == said
    assert said[0]


def test_a_size_that_was_meant_is_kept():
    model = folder(sample=128)
    model.default_width = model.default_height = 768

    assert add_base_model(model, keeps_size=True).default_width == 768
    assert add_base_model(file()).default_width == 1024


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("folder", "../outside"),
        ("folder", "/etc"),
        ("folder", ""),
        ("folder", "file.safetensors"),
        ("file", "lora.safetensors"),
        ("file", "model.ckpt"),
        ("bundled", "nothing"),
        ("hub", "sd15"),
        ("hub", "org/name/more"),
        ("hub", "../name"),
        ("hub", "org/.."),
        ("hub", "org/na me"),
        ("hub", "https://host/name"),
    ],
)
def test_a_source_that_no_model_can_have_is_refused(kind, source):
    write_header(models_root() / "file.safetensors", WHOLE | {CROSS: (320, 768)})
    write_sd1_adapter(models_root() / "lora.safetensors")
    (models_root() / "model.ckpt").write_bytes(b"pickled")
    (models_root().parent / "outside").mkdir()

    with pytest.raises(Invalid) as refusal:
        add_base_model(BaseModel(name="a", kind=kind, source=source))

    assert refusal.value.pointer == "/source"
    assert str(models_root()) not in str(refusal.value)


def test_files_of_another_machine_are_no_reason_to_refuse_it():
    model = add_base_model(BaseModel(name="a", kind=BaseModel.Kind.FOLDER, source="elsewhere"))

    assert model.problem == "Its weights are not on this machine."


def test_a_model_of_the_hub_is_what_staff_say():
    model = add_base_model(
        BaseModel(name="a", kind=BaseModel.Kind.HUB, source="org/name-1.0", architecture="sdxl")
    )

    assert (probe_base_model(model).architecture, model.problem) == ("sdxl", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("default_scheduler", "DPM++ 2M"),
        ("default_width", 500),
        ("default_height", 516),
        ("default_steps", 5000),
    ],
)
def test_defaults_that_no_request_could_be_made_with_are_refused(field, value):
    model = BaseModel(name="sd15", kind=BaseModel.Kind.HUB, source="org/sd15", **{field: value})

    with pytest.raises(ValidationError) as refused:
        add_base_model(model)

    assert field in refused.value.message_dict


def test_a_class_with_an_endless_name_is_noted_as_far_as_it_fits():
    model = folder()
    index = models_root() / "sd15" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "A" * 300}))

    assert len(add_base_model(model).pipeline) <= 100


def test_a_name_is_given_once():
    add_base_model(folder("a"))
    other = folder("b")
    other.name = "a"

    with pytest.raises(NameTaken):
        add_base_model(other)
    with pytest.raises(NameTaken):
        services.update_base_model(add_base_model(file("c")), name="a")


def test_values_out_of_range_are_refused():
    model = folder()
    model.default_guidance_scale = 31

    with pytest.raises(ValidationError):
        add_base_model(model)


def test_a_model_that_moves_is_looked_at_again():
    model = add_base_model(folder())
    file()

    changed = services.update_base_model(model, kind="file", source="sdxl.safetensors")

    assert (changed.architecture, changed.pipeline) == ("sdxl", "StableDiffusionXLPipeline")


@pytest.fixture
def used():
    """Let something be made with every base model while a test runs."""

    def check(keys):
        return dict.fromkeys(keys, "Jobs name it.")

    in_use.register(BaseModel, check)
    yield
    in_use.unregister(BaseModel, check)


def test_one_that_something_was_made_with_stays_where_it_is(used):
    model = add_base_model(folder())
    folder("other")

    for changes in ({"source": "other"}, {"kind": "hub", "source": "org/sd15"}):
        with pytest.raises(InUse, match=r"Jobs name it\. Other weights are another base model"):
            services.update_base_model(model, default_steps=7, **changes)

    model.refresh_from_db()
    assert (model.kind, model.source, model.default_steps) == ("folder", "sd15", 30)
    assert services.update_base_model(model, source="sd15", default_steps=7).default_steps == 7


def test_one_that_a_training_run_names_stays_too():
    model = add_base_model(folder())
    owner = UserFactory()
    dataset = Dataset.objects.create(owner=owner, sha256="0" * 64)
    TrainingRun.objects.create(
        owner=owner, name="run", base_model=model, dataset=dataset, config={}, config_sha256="0" * 64
    )

    with pytest.raises(InUse, match="Training runs name it"):
        services.update_base_model(model, kind="hub", source="org/sd15")
    with pytest.raises(InUse, match="Training runs name it"):
        services.delete_base_model(model)


def transactions() -> int:
    """Return how many transactions are open, one in the other."""
    return len(transaction.get_connection().savepoint_ids)


def test_files_are_looked_at_with_no_transaction_open(monkeypatch):
    looks = []

    def look(path):
        looks.append(transactions())
        return recognise_model(path)

    monkeypatch.setattr(base_models, "recognise_model", look)
    before = transactions()  # the test's own
    model = add_base_model(folder())
    folder("other")
    services.update_base_model(model, source="other")
    folder("third")
    scanned()

    assert len(looks) == 4
    assert looks == [before] * 4


def test_a_look_that_was_overtaken_counts_for_nothing(monkeypatch):
    model = add_base_model(folder())
    folder("other")

    def look(path):
        BaseModel.objects.filter(pk=model.pk).update(kind="file")  # somebody else meanwhile
        return recognise_model(path)

    monkeypatch.setattr(base_models, "recognise_model", look)
    with pytest.raises(Conflict, match="Try again"):
        services.update_base_model(model, source="other")


def test_a_look_finds_what_has_changed():
    model = add_base_model(folder())
    (models_root() / "sd15" / "model_index.json").unlink()

    probe_base_model(model)

    model.refresh_from_db()
    assert "layout of diffusers" in model.problem
    assert model.architecture == "sd1"


def test_who_was_deleted_meanwhile_is_gone():
    model = add_base_model(folder())
    BaseModel.objects.filter(pk=model.pk).delete()

    with pytest.raises(services.BaseModelGone):
        probe_base_model(model)
    with pytest.raises(services.BaseModelGone):
        services.update_base_model(model, default_steps=5)


def scanned(**options):
    return {outcome.path: outcome.outcome for outcome in scan_base_models(**options)}


def test_a_scan_finds_folders_and_files_and_leaves_the_rest_alone():
    folder("collection/Deep.v1")
    file("xl")
    write_folder(models_root() / "xl")  # the configuration of the file beside it
    write_sd1_adapter(models_root() / "loras" / "a.safetensors")
    write_sd1_adapter(models_root() / "b.safetensors")

    assert scanned(dry_run=True) == scanned()
    assert scanned() == {
        "collection/Deep.v1": "unchanged",
        "xl.safetensors": "unchanged",
        "b.safetensors": "refused",
    }
    found = BaseModel.objects.exclude(kind="bundled").order_by("name")
    assert list(found.values_list("name", "kind", "architecture")) == [
        ("deep-v1", "folder", "sd1"),
        ("xl", "file", "sdxl"),
    ]


def test_models_of_one_name_are_told_apart():
    folder("a/sd15")
    folder("b/sd15")

    scanned()

    assert set(BaseModel.objects.filter(kind="folder").values_list("name", flat=True)) == {"sd15", "sd15-2"}
