import json
import pickle
import shutil
import socket
from pathlib import Path

import pytest
import torch

from generation.engine.models import ModelCache
from training.pipelines import loading
from training.pipelines.failures import FailureCode, RequestFailed
from training.pipelines.hardware import choose_hardware
from training.pipelines.references import ModelKind, ModelReference
from training.tests import tiny_models


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny_models.build_sd15(tmp_path_factory.mktemp("models") / "original")


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "model"))


@pytest.fixture
def cache():
    return ModelCache(choose_hardware("cpu"), capacity=2)


def reference(source, kind=ModelKind.FOLDER):
    return ModelReference(str(source), kind)


def failure_of(cache, source, kind=ModelKind.FOLDER):
    with pytest.raises(RequestFailed) as caught:
        cache.load(reference(source, kind))
    assert str(source) not in caught.value.detail or kind == ModelKind.HUB
    return caught.value.code


class TestModelCache:
    def test_reads_a_model_once(self, cache, folder):
        assert cache.find(reference(folder)) is None

        model = cache.load(reference(folder))

        assert cache.find(reference(folder)) is model
        assert cache.loads == 1

    def test_lets_go_of_the_least_recently_used(self, cache, original, tmp_path):
        first, second, third = (
            reference(shutil.copytree(original, tmp_path / name)) for name in ("first", "second", "third")
        )
        cache.load(first)
        cache.load(second)
        cache.find(first)

        cache.load(third)

        assert [cache.find(model) is not None for model in (first, second, third)] == [True, False, True]

    def test_does_not_take_a_model_trained_again_for_the_old_one(self, cache, folder):
        cache.load(reference(folder))
        (folder / "model_index.json").write_text((folder / "model_index.json").read_text() + "\n")

        assert cache.find(reference(folder)) is None

    def test_keeps_its_models_when_another_is_missing(self, cache, folder, tmp_path):
        small = ModelCache(cache.hardware, capacity=1)
        small.load(reference(folder))

        assert failure_of(small, tmp_path / "missing") == FailureCode.MODEL_MISSING

        assert small.find(reference(folder)) is not None


class TestMemory:
    """What is in memory is bounded in bytes, and given back when a picture needs it."""

    @pytest.fixture
    def models(self, original, tmp_path):
        return [reference(shutil.copytree(original, tmp_path / name)) for name in ("one", "two", "three")]

    def test_models_share_a_budget(self, cache, models):
        size = cache.load(models[0]).size_bytes
        small = ModelCache(cache.hardware, capacity=3, budget_bytes=5 * size // 2)

        for model in models:
            small.load(model)

        assert [small.find(model) is not None for model in models] == [False, True, True]

    def test_one_model_alone_may_be_larger(self, cache, models):
        small = ModelCache(cache.hardware, capacity=3, budget_bytes=1000)
        small.load(models[0])

        assert small.find(models[0]) is not None

    def test_a_model_that_does_not_fit_beside_others_gets_the_room_of_all(self, cache, models, monkeypatch):
        cache.load(models[0])
        real = loading.load_pipeline

        def load(*arguments):
            if cache._models:
                raise RequestFailed(FailureCode.OUT_OF_MEMORY, "full")
            return real(*arguments)

        monkeypatch.setattr(loading, "load_pipeline", load)

        cache.load(models[1])

        assert [cache.find(model) is not None for model in models[:2]] == [False, True]

    def test_everything_but_the_model_at_hand_can_be_let_go(self, cache, models):
        kept = cache.load(models[0])
        cache.load(models[1])
        kept.prompts._read("a red heart", ())

        cache.spare_memory(kept)

        assert [cache.find(model) is not None for model in models[:2]] == [True, False]
        assert not kept.prompts._memory

    def test_the_statistics_tell(self, cache, models):
        cache.load(models[0])
        cache.find(models[0])

        said = cache.statistics()

        assert (said["loads"], said["hits"], said["capacity"]) == (1, 1, 2)
        assert said["budget_bytes"] > 1_000_000
        (model,) = said["models"]
        assert (model["name"], model["uses"], model["adapter_loads"]) == ("one", 2, 0)


class TestLoadPipeline:
    def test_leaves_out_safety_checker_and_watermark(self, cache, folder, tmp_path):
        model = cache.load(reference(folder))
        large = cache.load(reference(tiny_models.build_sdxl(tmp_path / "xl")))

        assert model.pipeline.safety_checker is None
        assert large.pipeline.watermark is None
        assert model.pipeline.unet.dtype == torch.float32

    def test_finds_weights_that_exist_in_half_precision_only(self, cache, folder):
        for weights in folder.glob("*/*.safetensors"):
            weights.rename(weights.with_suffix(f".fp16{weights.suffix}"))

        assert cache.load(reference(folder)).pipeline.unet.dtype == torch.float32

    @pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
    def test_refuses_broken_weights(self, cache, folder, part):
        (weights,) = (folder / part).glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:1000])

        assert failure_of(cache, folder) == FailureCode.MODEL_INVALID

    @pytest.mark.parametrize(
        ("part", "name"),
        [("unet", "diffusion_pytorch_model.bin"), ("text_encoder", "pytorch_model.bin")],
    )
    def test_never_opens_a_pickle(self, cache, folder, tmp_path, part, name):
        trap = tmp_path / "opened"

        class Payload:
            def __reduce__(self):
                return Path.touch, (trap,)

        (weights,) = (folder / part).glob("*.safetensors")
        weights.unlink()
        (folder / part / name).write_bytes(pickle.dumps(Payload()))

        assert failure_of(cache, folder) == FailureCode.MODEL_INVALID
        assert not trap.exists()

    @pytest.mark.parametrize(
        "index",
        [
            "{",
            "[]",
            "{}",
            '{"_class_name": "StableDiffusionImg2ImgUpscale"}',
            '{"_class_name": ["evil", "Pipe"]}',
        ],
    )
    def test_refuses_a_folder_that_is_no_pipeline(self, cache, folder, index):
        (folder / "model_index.json").write_text(index)

        assert failure_of(cache, folder) == FailureCode.MODEL_INVALID

    def test_refuses_a_folder_without_an_index(self, cache, tmp_path):
        assert failure_of(cache, tmp_path) == FailureCode.MODEL_INVALID

    def test_stays_off_the_network_unless_allowed(self, cache, monkeypatch):
        lookups = []
        monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: lookups.append(address))

        assert failure_of(cache, "nobody/nothing", ModelKind.HUB) == FailureCode.MODEL_MISSING
        assert lookups == []


class TestSingleFile:
    def test_needs_only_configurations_beside_it(self, cache, folder, tmp_path):
        file = tiny_models.write_single_file(folder, tmp_path / "model.safetensors")
        for weights in folder.glob("*/*.safetensors"):
            weights.unlink()

        model = cache.load(reference(file, ModelKind.FILE))

        assert type(model.pipeline).__name__ == "StableDiffusionPipeline"

    def test_says_which_configuration_it_lacks(self, cache, folder, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
        file = tiny_models.write_single_file(folder, tmp_path / "alone.safetensors")

        with pytest.raises(
            RequestFailed, match="needs the configuration of stable-diffusion-v1-5/"
        ) as caught:
            cache.load(reference(file, ModelKind.FILE))

        assert caught.value.code == FailureCode.MODEL_MISSING

    def test_refuses_a_file_that_is_no_model(self, cache, tmp_path):
        file = tmp_path / "noise.safetensors"
        file.write_bytes(b"not a model at all")

        assert failure_of(cache, file, ModelKind.FILE) == FailureCode.MODEL_INVALID

    def test_refuses_other_kinds_of_files(self, cache, tmp_path):
        file = tmp_path / "model.ckpt"
        file.write_bytes(b"")

        assert failure_of(cache, file, ModelKind.FILE) == FailureCode.MODEL_INVALID

    def test_refuses_models_that_do_not_draw(self, cache, folder, tmp_path):
        file = tiny_models.write_single_file(folder, tmp_path / "model.safetensors")
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "AudioLDMPipeline"}))

        assert failure_of(cache, file, ModelKind.FILE) == FailureCode.MODEL_INVALID

    def test_of_a_missing_file_is_missing(self, cache, tmp_path):
        assert failure_of(cache, tmp_path / "gone.safetensors", ModelKind.FILE) == FailureCode.MODEL_MISSING


def test_goes_back_offline_after_a_load_that_might_download(monkeypatch):
    monkeypatch.setattr(loading.huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    with loading._network(is_allowed=True):
        assert not loading.huggingface_hub.constants.HF_HUB_OFFLINE

    assert loading.huggingface_hub.constants.HF_HUB_OFFLINE
