"""The smaller parts, each by itself."""

import io
import json

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from PIL import Image

from imagehub.jobs.protocol import Channel
from training.datasets.buckets import crop_box
from training.pipelines.failures import FailureCode, RequestFailed
from training.tests.trainer.rig import Recorder, small_recipe
from training.trainer.examples import Example, pixels
from training.trainer.losses import errors, min_snr_weights
from training.trainer.networks import adapter_weights, add_adapter, layer_names
from training.trainer.optimizers import make_optimizer, make_schedule
from training.trainer.progress import Progress


class TestMinSnr:
    alphas = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod
    timesteps = torch.tensor([0, 100, 500, 999])

    @pytest.mark.parametrize("gamma", [1.0, 5.0])
    def test_is_what_its_authors_say(self, gamma):
        snr = (self.alphas / (1 - self.alphas))[self.timesteps]
        capped = snr.clamp(max=gamma)

        for prediction, divisor in (("epsilon", snr), ("v_prediction", snr + 1)):
            weights = min_snr_weights(self.timesteps, self.alphas, gamma=gamma, prediction=prediction)
            torch.testing.assert_close(weights, capped / divisor)

    def test_is_a_number_where_nothing_but_noise_is_left(self):
        alphas = torch.tensor([0.9, 0.0])

        for prediction in ("epsilon", "v_prediction"):
            weights = min_snr_weights(torch.tensor([0, 1]), alphas, gamma=5.0, prediction=prediction)
            assert weights.isfinite().all()

    def test_errors_are_those_of_each_picture(self):
        target = torch.zeros(3, 4, 2, 2)
        prediction = target + torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1)

        assert errors(prediction, target).tolist() == [0, 1, 4]


class TestPixels:
    def example(self, folder, image, bucket, at=(0.5, 0.5)):
        import hashlib

        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        (folder / sha256).write_bytes(buffer.getvalue())
        return Example(sha256, "", 1, image.size, bucket, crop_box(image.size, bucket, at))

    def test_are_cut_from_the_middle_and_flipped(self, tmp_path):
        image = Image.new("RGB", (80, 40), "black")
        image.paste("white", (20, 0, 40, 40))
        example = self.example(tmp_path, image, (40, 40))

        one, other = (pixels(example, tmp_path, is_flipped=flip) for flip in (False, True))

        assert one.shape == (3, 40, 40)
        assert one[:, :, :20].mean() > 0.9
        assert one[:, :, 20:].mean() < -0.9
        assert torch.equal(one.flip(-1), other)

    def test_shine_through_to_white(self, tmp_path):
        example = self.example(tmp_path, Image.new("RGBA", (16, 16), (0, 0, 0, 0)), (16, 16))

        assert (pixels(example, tmp_path, is_flipped=False) == 1).all()

    def test_of_another_size_are_refused(self, tmp_path):
        example = self.example(tmp_path, Image.new("RGB", (16, 16)), (16, 16))
        other = Example(example.sha256, "", 1, (16, 17), (16, 16), (0, 0, 16, 16))

        with pytest.raises(RequestFailed, match="another size") as failure:
            pixels(other, tmp_path, is_flipped=False)
        assert failure.value.code == FailureCode.DATASET_INVALID

    def test_sdxl_is_told_what_was_cut_off(self):
        size, bucket = (200, 100), (50, 50)
        example = Example("00", "", 1, size, bucket, crop_box(size, bucket, (0.25, 0.5)))

        # Scaled by half it is 100 x 50, of which a quarter of the 50 that stand over is cut off at the left.
        assert example.conditions(is_flipped=False) == (100, 200, 0, 12, 50, 50)
        assert example.conditions(is_flipped=True) == (100, 200, 0, 38, 50, 50)


@pytest.fixture(scope="module")
def unet(tiny_folders):
    return UNet2DConditionModel.from_pretrained(tiny_folders["sd15"] / "unet")


class TestNetworks:
    def test_attention_is_part_of_the_transformer(self, unet):
        attention, transformer = (
            layer_names("unet", unet, targets) for targets in ("attention", "transformer")
        )

        # Three blocks and the one in the middle: eight projections each, and four layers more.
        assert len(attention) == 4 * 8
        assert len(transformer) == 4 * 12
        assert set(attention) < set(transformer)

    def test_endings_choose_layers(self, unet):
        names = layer_names("unet", unet, ("attn2.to_k", "conv_shortcut"))

        assert {name.rpartition(".")[2] for name in names} == {"to_k", "conv_shortcut"}
        assert all("attn1" not in name for name in names)

    def test_a_fresh_adapter_is_seeded_small_and_float32(self, tiny_folders):
        def weights(seed):
            unet = UNet2DConditionModel.from_pretrained(
                tiny_folders["sd15"] / "unet", torch_dtype=torch.bfloat16
            )
            unet.requires_grad_(False)
            torch.manual_seed(seed + 100)  # whatever was drawn before
            before = torch.random.get_rng_state()
            add_adapter({"unet": unet}, small_recipe(seed=seed))
            assert torch.equal(torch.random.get_rng_state(), before)
            return adapter_weights({"unet": unet})

        one, same, other = weights(1), weights(1), weights(2)

        assert {tensor.dtype for tensor in one.values()} == {torch.float32}
        assert all(torch.equal(one[name], same[name]) for name in one)
        for name, tensor in one.items():
            assert tensor.any() == ("lora_A" in name)
            assert torch.equal(tensor, other[name]) == ("lora_B" in name)


class TestOptimizers:
    @pytest.fixture
    def parts(self):
        return {"unet": torch.nn.Linear(2, 2), "text_encoder": torch.nn.Linear(2, 2)}

    def rates(self, parts, **recipe):
        recipe = small_recipe(**recipe)
        schedule = make_schedule(make_optimizer(parts, recipe), recipe)
        rates = []
        for _ in range(recipe.steps):
            rates.append(schedule.get_last_lr())
            schedule.optimizer.step()
            schedule.step()
        return rates

    def test_rates_follow_the_recipe(self, parts):
        assert {rate for rate, _ in self.rates(parts, learning_rate=0.5)} == {0.5}
        falling = [rate for rate, _ in self.rates(parts, steps=4, learning_rate=0.4, lr_scheduler="linear")]
        assert falling == pytest.approx([0.4, 0.3, 0.2, 0.1])
        rising = [rate for rate, _ in self.rates(parts, steps=4, learning_rate=0.4, warmup_steps=4)]
        assert rising == pytest.approx([0.0, 0.1, 0.2, 0.3])

    def test_text_encoders_may_have_their_own(self, parts):
        options = {"train_text_encoder": True, "text_encoder_learning_rate": 0.25, "learning_rate": 0.5}

        assert set(map(tuple, self.rates(parts, **options))) == {(0.5, 0.25)}

    def test_a_rate_below_the_end_of_its_schedule_is_refused(self, parts):
        with pytest.raises(RequestFailed, match="too small"):
            self.rates(parts, learning_rate=1e-9, lr_scheduler="polynomial")


class TestProgress:
    def make(self, tmp_path, total=10_000):
        recorder = Recorder()
        return Progress(Channel(recorder, io.BytesIO()), tmp_path / "metrics.jsonl", total=total), recorder

    def step(self, progress, number, seconds=0.01):
        progress.step(number, epoch=0, loss=1.0, learning_rate=0.1, grad_norm=0.5, seconds=seconds)

    def test_tells_seldom_and_loses_nothing(self, tmp_path):
        progress, recorder = self.make(tmp_path, total=500)
        with progress.phase("train"):
            for number in range(1, 501):
                self.step(progress, number)

        events = [event for event in recorder.events if event["event"] == "step"]
        assert len(events) <= 3
        assert [point[0] for event in events for point in event["points"]] == list(range(1, 501))
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 500

    def test_an_event_fits_into_a_line_of_the_protocol(self, tmp_path, monkeypatch):
        progress, recorder = self.make(tmp_path)
        monkeypatch.setattr("training.trainer.progress.SECONDS_BETWEEN_EVENTS", 10**6)
        with progress.phase("train"):
            for number in range(1, 10_001):
                progress.step(
                    number,
                    epoch=0,
                    loss=float(np.float32(1 / 3)),
                    learning_rate=1e-4 / 3,
                    grad_norm=1 / 3,
                    seconds=1 / 3,
                )

        assert max(len(json.dumps(event)) for event in recorder.events) < 200_000

    def test_forgets_half_a_line(self, tmp_path):
        progress, _ = self.make(tmp_path)
        lines = '{"step": 1, "loss": 1.0}\n{"step": 3, "loss": 1.0}\n{"step": 2, "lo'
        (tmp_path / "metrics.jsonl").write_text(lines)

        progress.resume(2)

        assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 1.0}\n'

    def test_counts_the_time_of_each_phase_once(self, tmp_path, monkeypatch):
        clock = iter(range(0, 1000, 10))
        monkeypatch.setattr("training.trainer.progress.time.monotonic", lambda: next(clock))
        progress, recorder = self.make(tmp_path)

        with progress.phase("train"), progress.phase("save"):
            pass

        assert progress.seconds == {"train": 20, "save": 10}
        phases = [event["phase"] for event in recorder.events if event["event"] == "phase"]
        assert phases == ["train", "save", "train"]

    def test_says_once_when_steps_crawl(self, tmp_path):
        progress, recorder = self.make(tmp_path)
        with progress.phase("train"):
            for number in range(1, 101):
                self.step(progress, number, seconds=0.01 if number < 60 else 0.2)

        warnings = [event["code"] for event in recorder.events if event["event"] == "warning"]
        assert warnings == ["slow"]


class TestModels:
    def test_that_cannot_be_trained_are_refused(self, rig, tiny_folders, tmp_path):
        import shutil

        folder = shutil.copytree(tiny_folders["sd15"], tmp_path / "sample")
        config = folder / "scheduler" / "scheduler_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "sample"}))
        rig = rig()
        rig.model = folder

        with pytest.raises(RequestFailed, match="sample") as failure:
            rig.train()

        assert failure.value.code == FailureCode.MODEL_INVALID

    def test_encode_at_the_scale_of_the_denoiser(self, rig):
        model = rig(steps=1).train().training._model
        picture = torch.zeros(1, 3, 32, 32)

        mean, deviation = model.encode(picture)

        posterior = model.vae.encode(picture).latent_dist
        assert torch.equal(mean, posterior.mean * model.vae.config.scaling_factor)
        assert torch.equal(deviation, posterior.std * model.vae.config.scaling_factor)
        assert mean.shape == (1, 4, 4, 4)

    def test_of_sdxl_read_no_caption_as_zeros(self, rig):
        model = rig(model="sdxl", steps=1).train().training._model

        texts = model.read(["a ball", ""])

        assert model.pipeline.config.force_zeros_for_empty_prompt
        assert texts.sequence[0].any()
        assert not texts.sequence[1].any()
        assert not texts.pooled[1].any()

    @pytest.mark.parametrize("kind", ["sd15", "v"])
    def test_say_noise_or_velocity(self, rig, kind):
        model = rig(model=kind, steps=1, validation_every=0).train().training._model
        latents, noise = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
        when = torch.tensor([10, 900])
        kept = model.schedule.alphas_cumprod[when].view(2, 1, 1, 1)

        target = model.target(latents, noise, when)

        # T. Salimans and J. Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022, appendix D.
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * latents
        torch.testing.assert_close(target, velocity if kind == "v" else noise)
