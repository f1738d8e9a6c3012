"""What a training will take: calculated from the sizes of models, and told by what was trained before."""

import pytest

from imagehub.config import get_config
from training.estimates import estimate_training
from training.models import BaseModel
from training.recipe import Recipe
from training.tests.factories import TrainingRunFactory, starter_model
from training.tests.weight_files import sd15_parts, sdxl_parts
from training.tests.weight_headers import write_header
from training.weights.families import Family
from training.weights.sizes import KNOWN, size_of_model

GB = 1e9


def recipe(**values):
    return Recipe(
        **{"resolution": 512, "rank": 16, "steps": 1000, "mixed_precision": "bf16", "optimizer": "adamw"}
        | values
    )


def on_disk_nowhere(architecture):
    return BaseModel.objects.create(
        name=f"m-{architecture}", kind="file", source="none.safetensors", architecture=architecture
    )


def past_run(base_model, facts, **values):
    values = {"status": "completed", "attempt": 1, "finished_at": "2026-01-01T00:00:00Z"} | values
    return TrainingRunFactory(base_model=base_model, facts={"device": "cpu"} | facts, **values)


class TestSizes:
    @pytest.mark.parametrize(("family", "parts"), [(Family.SD1, sd15_parts), (Family.SDXL, sdxl_parts)])
    def test_of_known_families_are_those_of_the_models(self, family, parts):
        from training.trainer.networks import layer_names

        known = KNOWN[family]
        for name, part in parts().items():
            assert known.parameters[name] == sum(tensor.numel() for tensor in part.parameters())
            for targets in ("attention", "transformer"):
                layers = [
                    part.get_submodule(layer).weight.shape for layer in layer_names(name, part, targets)
                ]
                assert known.adapter[name][targets] == sum(shape[0] + shape[1] for shape in layers)

    @pytest.mark.parametrize("targets", ["attention", "transformer", ("attn2.to_k", "proj_in", "fc1")])
    def test_of_a_folder_are_read_from_its_headers(self, targets):
        from diffusers import StableDiffusionPipeline

        from training.starter import MODEL_DIR
        from training.trainer.networks import add_adapter, trainable

        size = size_of_model(MODEL_DIR, "other")

        pipeline = StableDiffusionPipeline.from_pretrained(MODEL_DIR, safety_checker=None)
        parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
        assert size.parameters["vae"] == sum(tensor.numel() for tensor in pipeline.vae.parameters())
        for name, part in parts.items():
            assert size.parameters[name] == sum(tensor.numel() for tensor in part.parameters())
        add_adapter(parts, recipe(rank=3, target_modules=targets))
        assert size.context_width == pipeline.unet.config.cross_attention_dim
        found = sum(weight.numel() for weight in trainable(parts.values()))
        assert size.of_adapter(rank=3, targets=targets, with_texts=True) == found

    def test_of_a_single_file_are_counted_and_its_layers_known(self, tmp_path):
        shapes = {
            "model.diffusion_model.a": (10, 20),
            "first_stage_model.b": (7,),
            "conditioner.c": (3, 3),
            "d": (9,),
        }
        file = write_header(tmp_path / "model.safetensors", shapes)

        size = size_of_model(file, "sdxl")

        assert size.parameters == {"unet": 200, "vae": 7, "text_encoder": 9}
        assert size.adapter == KNOWN[Family.SDXL].adapter
        assert size_of_model(file, "other") is None

    def test_of_a_damaged_file_are_those_of_its_family(self, tmp_path):
        file = tmp_path / "model.safetensors"
        file.write_bytes(b"damaged")

        assert size_of_model(file, "sd1") == KNOWN[Family.SD1]

    def test_of_something_else_that_is_not_here_nobody_knows(self):
        assert size_of_model(None, "flux") is None
        assert size_of_model(None, None) is None


@pytest.mark.django_db
class TestCalculated:
    @pytest.fixture(autouse=True)
    def _on_a_gpu(self, settings):
        settings.CONFIG_FILE.write_text("training: {device: cuda}\n")

    @pytest.mark.parametrize(
        ("architecture", "values", "low", "high"),
        [
            # As published: SDXL needs 8 to 10 GB with checkpointing, and with 8 bits less than without.
            ("sdxl", {"resolution": 1024, "rank": 32, "gradient_checkpointing": True}, 8 * GB, 10 * GB),
            ("sdxl", {"resolution": 1024, "rank": 32}, 12 * GB, 18 * GB),
            ("sd1", {}, 3 * GB, 6 * GB),
            ("sd1", {"batch_size": 4}, 6 * GB, 11 * GB),
        ],
    )
    def test_memory_is_about_what_others_tell(self, architecture, values, low, high):
        estimate = estimate_training(recipe(**values), on_disk_nowhere(architecture), pictures=20)

        assert low < estimate.memory_bytes < high
        assert estimate.memory_bytes == sum(estimate.memory.values())
        assert (estimate.device, estimate.memory_basis, estimate.time_basis) == (
            "cuda",
            "calculated",
            "calculated",
        )

    def test_each_thing_that_takes_memory_is_counted(self):
        model = on_disk_nowhere("sdxl")

        def memory(**values):
            return estimate_training(recipe(**values), model, pictures=20).memory

        plain = memory()
        assert memory(gradient_checkpointing=True)["activations"] < plain["activations"] / 3
        assert memory(batch_size=2)["activations"] == 2 * plain["activations"]
        assert memory(mixed_precision="no")["weights"] == 2 * plain["weights"]
        assert memory(mixed_precision="auto") == plain
        assert memory(rank=32)["adapter"] == 2 * plain["adapter"]
        assert memory(optimizer="adamw8bit")["adapter"] < plain["adapter"]
        assert memory(train_text_encoder=True)["weights"] > plain["weights"]
        assert memory(train_text_encoder=True)["adapter"] > plain["adapter"]
        assert plain["adapter"] == 16 * 16 * 1_451_520

    def test_time_grows_with_the_work(self):
        model = on_disk_nowhere("sd1")

        def seconds(**values):
            return estimate_training(recipe(**values), model, pictures=20).seconds_per_step

        assert seconds(batch_size=4) > 3 * seconds()
        assert seconds(gradient_accumulation_steps=4) == seconds(batch_size=4)
        assert seconds(gradient_checkpointing=True) > 1.2 * seconds()
        assert seconds(resolution=1024) > 3 * seconds()

    def test_disk_is_told_by_what_it_is_for(self):
        model = on_disk_nowhere("sd1")
        samples = {
            "sample_every": 100,
            "sample_prompts": ("a", "b"),
            "sample_width": 512,
            "sample_height": 512,
        }

        estimate = estimate_training(
            recipe(keep_checkpoints=3, random_flip=False, **samples),
            model,
            pictures=20,
            picture_bytes=7_000_000,
        )

        numbers = 16 * 199_296
        assert estimate.trainable_parameters == numbers
        assert estimate.disk == {
            "pictures": 7_000_000,
            "cache": 20 * (4 * 64 * 64 * 2 * 2 + 77 * 768 * 4),
            "checkpoints": 5 * 12 * numbers,
            "samples": int(10 * 2 * 512 * 512 * 1.5),
            "export": 2 * numbers,
            "metrics": 150_000,
        }
        assert estimate.disk_bytes == sum(estimate.disk.values())

    def test_of_a_model_of_which_nothing_is_known_there_is_none(self):
        assert estimate_training(recipe(), on_disk_nowhere("flux"), pictures=20) is None


@pytest.mark.django_db
class TestMeasured:
    SMALL = {"resolution": 64, "batch_size": 4, "mixed_precision": "no"}

    def estimate(self, **values):
        return estimate_training(recipe(**self.SMALL | values), starter_model(), pictures=24)

    def run(self, facts, **values):
        return past_run(starter_model(), facts, recipe=recipe(**self.SMALL | values).model_dump())

    def test_the_very_same_was_measured(self):
        self.run(
            {"peak_memory_bytes": 700_000_000, "seconds_per_step": 0.5, "seconds": {"load": 6, "train": 500}}
        )

        estimate = self.estimate()

        assert (estimate.memory_bytes, estimate.memory_basis) == (700_000_000, "measured")
        assert (estimate.seconds_per_step, estimate.time_basis) == (0.5, "measured")
        assert estimate.seconds == 1000 * 0.5 + 6

    def test_others_correct_what_is_calculated(self):
        calculated, of_other = self.estimate(), self.estimate(batch_size=8)
        self.run(
            {
                "peak_memory_bytes": 2 * of_other.memory_bytes,
                "seconds_per_step": 3 * of_other.seconds_per_step,
            },
            batch_size=8,
        )

        corrected = self.estimate()

        assert corrected.memory_bytes == pytest.approx(2 * calculated.memory_bytes, rel=0.01)
        assert corrected.seconds_per_step == pytest.approx(3 * calculated.seconds_per_step, rel=0.01)
        assert (corrected.memory_basis, corrected.time_basis) == ("corrected", "corrected")

    def test_what_was_made_to_fit_says_nothing_of_memory(self):
        self.run({"peak_memory_bytes": 1, "seconds_per_step": 0.5, "changes": [{"code": "micro_batch"}]})

        estimate = self.estimate()

        assert (estimate.memory_basis, estimate.time_basis) == ("calculated", "measured")

    @pytest.mark.parametrize(
        "other", [{"facts": {"device": "cuda"}}, {"status": "failed"}, {"base_model": "another"}]
    )
    def test_other_devices_models_and_failures_say_nothing(self, settings, other):
        settings.CONFIG_FILE.write_text("training: {device: cpu}\n")
        model = on_disk_nowhere("sd1") if "base_model" in other else starter_model()
        facts = {"peak_memory_bytes": 1, "seconds_per_step": 9.0} | other.get("facts", {})
        past_run(
            model,
            facts,
            recipe=recipe(**self.SMALL).model_dump(),
            **{name: value for name, value in other.items() if name == "status"},
        )

        estimate = self.estimate()

        assert (estimate.memory_basis, estimate.time_basis) == ("calculated", "calculated")

    def test_auto_is_the_device_of_the_latest_run(self):
        assert get_config().training.device == "auto"
        assert self.estimate().device == "cpu"

        self.run({"device": "cuda", "peak_memory_bytes": 1_000_000_000})

        assert (self.estimate().device, self.estimate().memory_bytes) == ("cuda", 1_800_000_000)

    def test_a_recipe_of_another_version_is_passed_over(self):
        run = self.run({"seconds_per_step": 0.5})
        run.config = {"version": 0}
        run.save()

        assert self.estimate().time_basis == "calculated"
