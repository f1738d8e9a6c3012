"""Which adapters fit which base models, told before there is a job."""

import pytest

from imagehub.roots import models_root
from training import services
from training.models import Adapter, Architecture, BaseModel
from training.services import AdapterIncompatible, AdapterMissing, check_fits
from training.tests.factories import AdapterFactory
from training.tests.weight_headers import SD1_LAYERS, write_header

pytestmark = pytest.mark.django_db

LAYERS = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": (320, 320),
}


def base_model(name="sd15", *, architecture="sd1", width=768, layers=LAYERS):
    path = models_root() / name
    shapes = {key: (out, width if "attn2" in key else inputs) for key, (out, inputs) in layers.items()}
    write_header(path / "unet" / "diffusion_pytorch_model.safetensors", shapes)
    (path / "unet" / "config.json").write_text(f'{{"cross_attention_dim": {width}}}')
    (path / "model_index.json").write_text("{}")
    return BaseModel.objects.create(
        name=name, kind=BaseModel.Kind.FOLDER, source=name, architecture=architecture
    )


def test_the_layers_of_the_factory_are_those_of_the_model():
    assert {name.replace(".", "_") for name in LAYERS} == {
        f"{name.removeprefix('lora_unet_')}_weight" for name in SD1_LAYERS
    }


def test_an_adapter_fits_a_model_of_its_family_with_its_layers():
    check_fits(AdapterFactory(on_disk=True), base_model())


def test_an_adapter_of_another_family_is_refused_by_name():
    adapter = AdapterFactory(on_disk=True)

    with pytest.raises(AdapterIncompatible) as refusal:
        check_fits(adapter, base_model(architecture="sdxl"))

    assert refusal.value.code == "adapter_incompatible"
    assert "is for Stable Diffusion 1, the base model “sd15” is Stable Diffusion XL" in str(refusal.value)


def test_a_model_that_lacks_a_layer_is_refused():
    with pytest.raises(AdapterIncompatible, match="does not have"):
        check_fits(AdapterFactory(on_disk=True), base_model(layers=dict(list(LAYERS.items())[:1])))


def test_a_model_of_which_nothing_is_known_is_left_to_the_engine():
    hub = BaseModel.objects.create(name="h", kind=BaseModel.Kind.HUB, source="org/name")

    check_fits(AdapterFactory(on_disk=True), hub)


def test_an_adapter_whose_file_is_gone_is_refused():
    with pytest.raises(AdapterMissing):
        check_fits(AdapterFactory(), base_model())


def test_a_model_that_is_written_again_is_looked_at_again():
    adapter, model = AdapterFactory(on_disk=True), base_model()
    check_fits(adapter, model)
    path = models_root() / "sd15"
    write_header(path / "unet" / "diffusion_pytorch_model.safetensors", {"x.weight": (1, 1)})
    (path / "model_index.json").write_text('{"changed": true}')

    with pytest.raises(AdapterIncompatible):
        check_fits(adapter, model)


def test_lists_name_those_that_fit():
    fitting = AdapterFactory(on_disk=True)
    AdapterFactory(architecture=Architecture.SDXL)
    narrow = AdapterFactory(on_disk=True, on_disk__width=64, architecture=Architecture.OTHER)
    AdapterFactory(on_disk=True, on_disk__width=32, architecture=Architecture.OTHER)

    def found(model):
        return set(services.adapters_that_fit(Adapter.objects.all(), model))

    assert found(base_model()) == {fitting}
    assert found(base_model("tiny", architecture="other", width=64)) == {narrow}
    assert found(base_model("unseen", architecture="", width=64)) == {narrow}
    assert len(found(BaseModel(name="unknown", kind="hub", source="a/b"))) == 3  # the file of one is not here
