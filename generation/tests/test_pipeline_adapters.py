"""LoRA files of every layout, loaded into pipelines with the shapes of the real ones."""

import copy

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from generation.tests import tiny_adapters
from training.pipelines import adapters
from training.pipelines.failures import FailureCode, RequestFailed

# diffusers' schedulers hand tensors to numpy functions in a way that numpy 2 deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]

PARTS = {"sd15": ["unet", "text_encoder"], "sdxl": ["unet", "text_encoder", "text_encoder_2"]}
CLASSES = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
NAME = "adapter-0001"


@pytest.fixture(scope="module")
def originals(folders):
    found = {name: CLASSES[name].from_pretrained(folder) for name, folder in folders.items()}
    for pipeline in found.values():
        pipeline.set_progress_bar_config(disable=True)
    return found


@pytest.fixture
def load_base(originals):
    return lambda name="sd15": copy.deepcopy(originals[name])


def draw(pipeline) -> np.ndarray:
    with torch.inference_mode():
        return pipeline(
            "a red heart",
            width=64,
            height=64,
            num_inference_steps=3,
            output_type="np",
            generator=torch.Generator().manual_seed(1),
        ).images[0]


def load(pipeline, file, name=NAME, weight=1.0) -> int:
    size = adapters.load_adapter(pipeline, file, name=name, label="x")
    adapters.activate(pipeline, {name: weight})
    return size


def layers_of(pipeline) -> int:
    return len(list(adapters.adapter_layers(pipeline)))


class TestLayouts:
    """What an adapter does is what adding its matrices to the weights of the base would do."""

    def check(self, load_base, name, changes, file, weight=1.0):
        expected, plain, base = load_base(name), load_base(name), load_base(name)
        tiny_adapters.apply(expected, changes, weight)
        load(base, file, weight=weight)

        effect = np.abs(draw(base) - draw(plain)).max()
        assert effect > 0.02
        assert np.abs(draw(base) - draw(expected)).max() < effect / 20

    @pytest.mark.parametrize("name", CLASSES)
    @pytest.mark.parametrize("weight", [1.0, -0.5])
    def test_kohya_with_an_alpha_that_is_not_its_rank(self, load_base, tmp_path, name, weight):
        changes = tiny_adapters.make_changes(load_base(name), parts=PARTS[name], rank=4, alpha=1.0)
        file = tiny_adapters.write_kohya(tmp_path / "a.safetensors", changes, is_sdxl=name == "sdxl")

        self.check(load_base, name, changes, file, weight)

    def test_kohya_with_the_layer_names_of_the_original_sdxl(self, load_base, tmp_path):
        changes = tiny_adapters.make_changes(load_base("sdxl"), parts=PARTS["sdxl"], alpha=2.0)
        file = tiny_adapters.write_kohya(tmp_path / "a.safetensors", changes, is_sdxl=True, sgm_names=True)

        self.check(load_base, "sdxl", changes, file)

    @pytest.mark.parametrize("name", CLASSES)
    def test_kohya_with_convolutions(self, load_base, tmp_path, name):
        changes = tiny_adapters.make_changes(
            load_base(name), parts=["unet"], alpha=2.0, layers=tiny_adapters.CONVOLUTIONS
        )
        file = tiny_adapters.write_kohya(tmp_path / "a.safetensors", changes, is_sdxl=name == "sdxl")

        self.check(load_base, name, changes, file)

    @pytest.mark.parametrize(
        ("name", "part"), [(name, part) for name, parts in PARTS.items() for part in parts]
    )
    def test_each_part_alone_takes_effect(self, load_base, tmp_path, name, part):
        # Text encoders have to be changed much to be seen; a UNet changed so much would draw what rounding makes of it.
        strength = 0.3 if part == "unet" else 3.0
        changes = tiny_adapters.make_changes(load_base(name), parts=[part], alpha=3.0, strength=strength)
        file = tiny_adapters.write_kohya(tmp_path / "a.safetensors", changes, is_sdxl=name == "sdxl")

        self.check(load_base, name, changes, file)

    @pytest.mark.parametrize("name", CLASSES)
    def test_diffusers_with_the_alpha_of_its_header(self, load_base, tmp_path, name):
        changes = tiny_adapters.make_changes(load_base(name), parts=PARTS[name], alpha=2.0)

        self.check(
            load_base, name, changes, tiny_adapters.write_diffusers(tmp_path / "a.safetensors", changes)
        )

    @pytest.mark.parametrize("name", CLASSES)
    def test_diffusers_from_before_peft(self, load_base, tmp_path, name):
        changes = tiny_adapters.make_changes(load_base(name), parts=PARTS[name], alpha=4.0)

        self.check(
            load_base, name, changes, tiny_adapters.write_old_diffusers(tmp_path / "a.safetensors", changes)
        )

    @pytest.mark.parametrize("name", CLASSES)
    def test_peft(self, load_base, tmp_path, name):
        changes = tiny_adapters.make_changes(load_base(name), parts=["unet"], alpha=4.0)

        self.check(load_base, name, changes, tiny_adapters.write_peft(tmp_path / "a.safetensors", changes))

    def test_ranks_that_differ_between_layers(self, load_base, tmp_path):
        pipeline = load_base()
        changes = [
            *tiny_adapters.make_changes(pipeline, parts=["unet"], rank=2, alpha=1.0),
            *tiny_adapters.make_changes(pipeline, parts=["text_encoder"], rank=8, alpha=2.0),
        ]
        changes[0] = tiny_adapters.make_changes(pipeline, parts=["unet"], rank=6, alpha=3.0)[0]
        changes[-1] = tiny_adapters.make_changes(pipeline, parts=["text_encoder"], rank=3, alpha=9.0)[-1]

        self.check(load_base, "sd15", changes, tiny_adapters.write_kohya(tmp_path / "a.safetensors", changes))

    def test_half_precision_files_in_a_base_of_single_precision(self, load_base, tmp_path):
        changes = tiny_adapters.make_changes(load_base(), parts=PARTS["sd15"], alpha=4.0)
        file = tiny_adapters.write_kohya(tmp_path / "a.safetensors", changes)
        save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
        pipeline = load_base()

        load(pipeline, file)

        kinds = {layer.lora_A[NAME].weight.dtype for layer in adapters.adapter_layers(pipeline)} | {
            layer.lora_B[NAME].weight.dtype for layer in adapters.adapter_layers(pipeline)
        }
        assert kinds == {torch.float32}


@pytest.mark.parametrize("name", CLASSES)
def test_two_adapters_add_up(load_base, tmp_path, name):
    expected, base = load_base(name), load_base(name)
    weights = {}
    for number, weight in enumerate([0.7, -0.4]):
        changes = tiny_adapters.make_changes(
            base if not number else load_base(name), parts=PARTS[name], seed=number
        )
        file = tiny_adapters.write_kohya(tmp_path / f"{number}.safetensors", changes, is_sdxl=name == "sdxl")
        tiny_adapters.apply(expected, changes, weight)
        adapters.load_adapter(base, file, name=f"adapter-000{number}", label="x")
        weights[f"adapter-000{number}"] = weight

    adapters.activate(base, weights)

    assert np.abs(draw(base) - draw(expected)).max() < 1e-3


@pytest.mark.parametrize("name", CLASSES)
class TestRemoval:
    @pytest.fixture
    def files(self, load_base, tmp_path, name):
        pipeline = load_base(name)
        return [
            tiny_adapters.write_kohya(
                tmp_path / f"{part}.safetensors",
                tiny_adapters.make_changes(pipeline, parts=[part], seed=7),
                is_sdxl=name == "sdxl",
            )
            for part in PARTS[name]
        ]

    def test_leaves_the_base_as_it_was_to_the_bit(self, load_base, files, name):
        pipeline = load_base(name)
        modules = {key: type(module) for key, module in pipeline.unet.named_modules()}
        before = draw(pipeline)
        for number, file in enumerate(files):
            load(pipeline, file, f"adapter-000{number}")
        assert not np.array_equal(draw(pipeline), before)

        for number in range(len(files)):
            adapters.remove_adapter(pipeline, f"adapter-000{number}")

        assert np.array_equal(draw(pipeline), before)
        assert layers_of(pipeline) == 0
        assert {key: type(module) for key, module in pipeline.unet.named_modules()} == modules
        assert not any(hasattr(part, "peft_config") for part in adapters.adaptable(pipeline))

    def test_of_one_leaves_the_other_as_if_it_were_alone(self, load_base, files, name):
        alone, both = load_base(name), load_base(name)
        load(alone, files[0])
        load(both, files[0])
        load(both, files[1], "adapter-0002")

        adapters.remove_adapter(both, "adapter-0002")
        adapters.activate(both, {NAME: 1.0})

        assert np.array_equal(draw(both), draw(alone))
        assert layers_of(both) == layers_of(alone)

    def test_an_inactive_one_changes_nothing(self, load_base, files, name):
        pipeline = load_base(name)
        before = draw(pipeline)
        load(pipeline, files[0])

        adapters.activate(pipeline, {})

        assert np.array_equal(draw(pipeline), before)

    def test_frees_the_name_and_the_weights(self, load_base, files, name):
        pipeline = load_base(name)
        size = load(pipeline, files[0])
        adapters.remove_adapter(pipeline, NAME)

        assert load(pipeline, files[0]) == size > 0


class TestRefusal:
    """Every refusal names a reason, and leaves the base, and the adapters it has, as they were."""

    @pytest.fixture
    def base(self, load_base, tmp_path):
        pipeline = load_base()
        changes = tiny_adapters.make_changes(pipeline, parts=PARTS["sd15"], seed=5)
        load(pipeline, tiny_adapters.write_kohya(tmp_path / "good.safetensors", changes))
        return pipeline

    def refuse(self, base, file, code=FailureCode.ADAPTER_INCOMPATIBLE) -> str:
        before, layers = draw(base), layers_of(base)
        with pytest.raises(RequestFailed) as caught:
            adapters.load_adapter(base, file, name="adapter-0002", label="mine")
        adapters.activate(base, {NAME: 1.0})
        assert caught.value.code == code
        assert "“mine”" in caught.value.detail
        assert str(file.parent) not in caught.value.detail
        assert np.array_equal(draw(base), before)
        assert layers_of(base) == layers
        return caught.value.detail

    def test_of_a_file_that_is_not_there(self, base, tmp_path):
        self.refuse(base, tmp_path / "gone.safetensors", FailureCode.ADAPTER_MISSING)

    def test_of_a_file_that_is_no_safetensors(self, base, tmp_path):
        file = tmp_path / "noise.safetensors"
        file.write_bytes(b"\x80\x04 certainly a pickle")

        assert "cannot be read" in self.refuse(base, file)

    def test_of_a_half_written_file(self, base, tmp_path):
        file = tmp_path / "half.safetensors"
        file.write_bytes((tmp_path / "good.safetensors").read_bytes()[:-500])

        assert "cannot be read" in self.refuse(base, file)

    def test_of_an_adapter_for_another_architecture(self, base, load_base, tmp_path):
        changes = tiny_adapters.make_changes(load_base("sdxl"), parts=PARTS["sdxl"])

        self.refuse(base, tiny_adapters.write_kohya(tmp_path / "xl.safetensors", changes, is_sdxl=True))
        self.refuse(base, tiny_adapters.write_diffusers(tmp_path / "xl2.safetensors", changes))

    def test_of_layers_with_other_sizes(self, base, load_base, tmp_path):
        changes = tiny_adapters.make_changes(load_base(), parts=["unet"])
        grown = [tiny_adapters.Change(c.part, c.module, torch.ones(4, 99), c.up, 4.0) for c in changes]

        detail = self.refuse(base, tiny_adapters.write_kohya(tmp_path / "other.safetensors", grown))

        assert "other sizes" in detail

    @pytest.mark.parametrize("part", ["unet", "text_encoder"])
    def test_of_layers_that_the_model_lacks(self, base, load_base, tmp_path, part):
        changes = tiny_adapters.make_changes(load_base(), parts=PARTS["sd15"])
        extra = next(c for c in changes if c.part == part)
        away = {"unet": extra.module.replace("down_blocks.0", "down_blocks.7")}.get(
            part, extra.module.replace("layers.0", "layers.9")
        )
        changes.append(tiny_adapters.Change(part, away, extra.down, extra.up, 1.0))

        self.refuse(base, tiny_adapters.write_kohya(tmp_path / "more.safetensors", changes))
        self.refuse(base, tiny_adapters.write_diffusers(tmp_path / "more2.safetensors", changes))

    def test_of_an_adapter_that_changes_nothing(self, base, load_base, tmp_path):
        changes = tiny_adapters.make_changes(load_base(), parts=["unet"], strength=0.0)

        assert "changes nothing" in self.refuse(
            base, tiny_adapters.write_kohya(tmp_path / "nothing.safetensors", changes)
        )

    @pytest.mark.parametrize(
        "key", ["x.dora_scale", "x.hada_w1_a", "x.lokr_w1", "x.lora_mid.weight", "x.diff", "emb_params"]
    )
    def test_of_what_is_no_plain_lora(self, base, load_base, tmp_path, key):
        changes = tiny_adapters.make_changes(load_base(), parts=["unet"])
        file = tiny_adapters.write_kohya(tmp_path / "other.safetensors", changes)
        save_file(load_file(file) | {f"lora_unet_{key}": torch.ones(4, 4)}, file)

        assert "no plain LoRA" in self.refuse(base, file)

    def test_of_half_a_pair(self, base, load_base, tmp_path):
        changes = tiny_adapters.make_changes(load_base(), parts=["unet"])
        file = tiny_adapters.write_kohya(tmp_path / "half.safetensors", changes)
        tensors = load_file(file)
        del tensors[next(name for name in tensors if "lora_up" in name)]
        save_file(tensors, file)

        assert "incomplete" in self.refuse(base, file)
