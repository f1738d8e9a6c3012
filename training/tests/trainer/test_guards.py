"""What can go wrong with numbers and memory in the middle of a training."""

import math
import sys

import pytest
import torch

from training.pipelines.failures import FailureCode, RequestFailed
from training.trainer import validation
from training.trainer.memory import Plan
from training.trainer.stepping import Stepper

OUT_OF_MEMORY = RuntimeError(
    "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
)


@pytest.fixture
def spoil(monkeypatch):
    """Make the losses of some steps something else. Takes a function of the number of the batch and its losses."""
    true_losses, true_accumulate, now = Stepper.losses, Stepper._accumulate, {}

    def accumulate(stepper, number, shown):
        now["number"] = number
        return true_accumulate(stepper, number, shown)

    def install(change):
        def losses(stepper, batch):
            found = true_losses(stepper, batch)
            return change(now["number"], found, stepper) if torch.is_grad_enabled() else found

        monkeypatch.setattr(Stepper, "losses", losses)
        monkeypatch.setattr(Stepper, "_accumulate", accumulate)

    return install


class TestClipping:
    def test_really_clips(self, rig, monkeypatch):
        norms = []
        true_step = torch.optim.AdamW.step

        def step(optimizer, *args, **options):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            norms.append(math.sqrt(sum(float(weight.grad.square().sum()) for weight in weights)))
            return true_step(optimizer, *args, **options)

        monkeypatch.setattr(torch.optim.AdamW, "step", step)

        result = rig(max_grad_norm=1e-3).train()

        before = [point[3] for point in result.points]
        assert min(before) > 2e-3
        assert max(norms) <= 1e-3 * 1.001

    def test_can_be_left_out(self, rig):
        one, other = rig(max_grad_norm=None).train(), rig(name="b", max_grad_norm=1e6).train()

        assert one.losses == other.losses


class TestNumbersThatAreNone:
    @pytest.mark.parametrize("what", [math.nan, math.inf])
    def test_leave_a_step_out(self, rig, spoil, what):
        spoil(lambda number, losses, stepper: losses * what if number == 2 else losses)

        result = rig().train()

        assert [point[0] for point in result.points] == [1, 2, 4, 5, 6]
        assert [warning["code"] for warning in result.of("warning")] == ["batch_skipped"]
        assert "Step 3 " in result.of("warning")[0]["detail"]
        assert all(tensor.isfinite().all() for tensor in result.weights.values())

    def test_end_it_at_the_fourth_in_a_row_and_leave_the_last_good_state(self, rig, spoil):
        spoil(lambda number, losses, stepper: losses * math.nan if number >= 4 else losses)
        rig = rig(steps=20, checkpoint_every=4, validation_every=0)

        with pytest.raises(RequestFailed) as failure:
            rig.train()

        assert failure.value.code == FailureCode.NOT_A_NUMBER
        assert failure.value.detail.startswith("4 steps in a row")
        assert [path.name for path in rig.folder.checkpoints.iterdir()] == ["step-000004"]

    def test_are_forgiven_when_a_good_step_lies_between(self, rig, spoil):
        spoil(lambda number, losses, stepper: losses if number % 4 == 3 else losses * math.nan)

        result = rig(steps=12).train()

        assert [point[0] for point in result.points] == [4, 8, 12]

    def test_of_the_gradients_alone_count_too(self, rig, spoil):
        # The square root has no slope at zero.
        spoil(lambda number, losses, stepper: losses + (losses * 0).sqrt() if number == 0 else losses)

        result = rig().train()

        assert [point[0] for point in result.points] == [2, 3, 4, 5, 6]

    def test_before_the_first_step_end_it_at_once(self, rig, tiny_folders, monkeypatch):
        monkeypatch.setattr("training.trainer.loop.validation.measure", lambda *args, **options: math.nan)

        with pytest.raises(RequestFailed) as failure:
            rig().train()

        assert failure.value.code == FailureCode.NOT_A_NUMBER


class TestMemory:
    def test_that_is_short_at_the_first_step_is_saved_rung_by_rung(self, rig, spoil):
        def short(number, losses, stepper):
            if stepper.plan.micro_batch > 1:
                raise OUT_OF_MEMORY
            return losses

        options = {"batch_size": 4, "validation_every": 0}
        whole = rig(**options).train()
        spoil(short)

        result = rig(name="short", **options).train()

        rungs = [(event["code"], event["before"], event["after"]) for event in result.of("changed")]
        assert rungs == [
            ("gradient_checkpointing", "False", "True"),
            ("micro_batch", "4", "2"),
            ("micro_batch", "2", "1"),
        ]
        # The same pictures with the same noise in every step, so about the same numbers.
        assert result.losses == pytest.approx(whole.losses, rel=1e-4)
        assert not result.of("warning")

    def test_that_is_short_on_every_rung_ends_it(self, rig, spoil):
        def short(number, losses, stepper):
            raise OUT_OF_MEMORY

        spoil(short)

        with pytest.raises(RequestFailed) as failure:
            rig().train()

        assert failure.value.code == FailureCode.OUT_OF_MEMORY

    def test_that_is_short_until_the_last_rung_is_saved_by_another_number_format(self, rig, spoil):
        def short(number, losses, stepper):
            if stepper.plan.precision == "no":
                raise OUT_OF_MEMORY
            return losses

        spoil(short)

        result = rig(sample_every=6, sample_prompts=("a ball",)).train()

        assert [event["code"] for event in result.of("changed")][-1] == "precision"
        assert result.training._model.dtype == torch.bfloat16
        assert {tensor.dtype for tensor in result.weights.values()} == {torch.float32}
        assert len(result.points) == 6
        assert len(result.of("sample")) == 1

    def test_that_is_short_when_it_is_first_measured_is_saved_too(self, rig, monkeypatch):
        true_measure = validation.measure

        def measure(validated, pictures, stepper, **options):
            if stepper.plan.micro_batch > 1:
                raise OUT_OF_MEMORY
            return true_measure(validated, pictures, stepper, **options)

        monkeypatch.setattr(validation, "measure", measure)

        result = rig().train()

        assert [event["code"] for event in result.of("changed")] == ["gradient_checkpointing", "micro_batch"]
        assert len(result.validation) == 3

    def test_that_is_short_for_samples_costs_the_samples(self, rig, monkeypatch):
        def short(*args, **options):
            raise OUT_OF_MEMORY

        monkeypatch.setattr("training.trainer.sampling._draw", short)

        result = rig(sample_every=2, sample_prompts=("a ball",)).train()

        assert result.is_finished
        assert {warning["code"] for warning in result.of("warning")} == {"samples_skipped"}

    def test_what_was_changed_is_remembered_over_a_break(self, rig, spoil):
        calls = []

        def short(number, losses, stepper):
            calls.append(stepper.plan)
            if not stepper.plan.gradient_checkpointing:
                raise OUT_OF_MEMORY
            return losses

        spoil(short)
        first = rig(steps=2)
        first.train()
        calls.clear()

        second = first.but(steps=4).train()

        assert not second.of("changed")
        assert all(plan.gradient_checkpointing for plan in calls)

    def test_that_runs_out_later_costs_a_step(self, rig, spoil):
        def short(number, losses, stepper):
            if number == 3:
                raise OUT_OF_MEMORY
            return losses

        spoil(short)

        result = rig().train()

        assert [point[0] for point in result.points] == [1, 2, 3, 5, 6]
        assert not result.of("changed")
        assert [warning["code"] for warning in result.of("warning")] == ["batch_skipped"]

    def test_that_stays_short_ends_it(self, rig, spoil):
        def short(number, losses, stepper):
            if number >= 3:
                raise OUT_OF_MEMORY
            return losses

        spoil(short)

        with pytest.raises(RequestFailed) as failure:
            rig(steps=10).train()

        assert failure.value.code == FailureCode.OUT_OF_MEMORY

    def test_the_last_rung_is_another_number_format(self):
        plan = Plan(gradient_checkpointing=True, micro_batch=1, precision="no")

        assert [(rung, after.precision) for rung, after in plan.rungs(torch.device("cpu"))] == [
            ("precision", "bf16")
        ]
        assert list(Plan(True, 1, "bf16").rungs(torch.device("cpu"))) == []

    def test_another_error_is_no_lack_of_it(self, rig, spoil):
        def broken(number, losses, stepper):
            raise RuntimeError("shapes do not match")

        spoil(broken)

        with pytest.raises(RuntimeError, match="shapes"):
            rig().train()


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"optimizer": "adamw8bit"}, "bitsandbytes"),
        ({"optimizer": "prodigy"}, "prodigyopt"),
        ({"mixed_precision": "fp16"}, "fp16"),
        ({"target_modules": ("to_q", "nowhere")}, "nowhere"),
        ({"target_modules": ("q_proj",)}, "unet"),
    ],
)
def test_what_cannot_be_done_is_said_beforehand(rig, recipe, says, monkeypatch):
    for package in ("bitsandbytes", "prodigyopt"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(RequestFailed, match=says) as failure:
        rig(**recipe, train_text_encoder="q_proj" in str(recipe)).train()

    assert failure.value.code == FailureCode.BAD_REQUEST


class TestHalfPrecision:
    """No GPU is needed to compute in it, only to do so quickly."""

    @pytest.fixture(autouse=True)
    def _allowed(self, monkeypatch):
        monkeypatch.setattr("training.trainer.memory._precision", lambda asked, device: asked)

    def test_scales_the_loss_until_the_gradients_fit(self, rig, spoil):
        scales = []

        def note(number, losses, stepper):
            scales.append(stepper._scaler.get_scale())
            return losses * 3e36 if number < 2 else losses

        spoil(note)

        result = rig(mixed_precision="fp16", max_grad_norm=None, validation_every=0).train()

        assert scales[:3] == [65536, 32768, 16384]
        assert [point[0] for point in result.points] == [3, 4, 5, 6]
        assert not result.of("warning")
        assert {tensor.dtype for tensor in result.weights.values()} == {torch.float32}

    def test_a_loss_that_is_no_number_is_left_out_all_the_same(self, rig, spoil):
        spoil(lambda number, losses, stepper: losses * math.nan if number == 1 else losses)

        result = rig(mixed_precision="fp16").train()

        assert [point[0] for point in result.points] == [1, 3, 4, 5, 6]
        assert [warning["code"] for warning in result.of("warning")] == ["batch_skipped"]

    def test_goes_on_with_the_same_scale(self, rig, spoil):
        spoil(lambda number, losses, stepper: losses * 3e36 if number < 2 else losses)
        first = rig(mixed_precision="fp16", steps=3, validation_every=0)
        first.train()

        second = first.but(steps=4).train()

        assert second.training._stepper._scaler.get_scale() == 16384
