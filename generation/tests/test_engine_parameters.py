"""What a request can ask beyond a prompt: adapters, a picture to start from, weights and long prompts, previews."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from generation.engine import previews
from generation.engine.models import ModelCache
from generation.engine.prompts import parse_prompt
from generation.engine.rendering import Watcher, render
from generation.engine.request import GenerateRequest
from generation.engine.stacks import Limits
from generation.tests import tiny_adapters
from training.pipelines.failures import FailureCode, RequestFailed
from training.pipelines.hardware import choose_hardware
from training.pipelines.schedulers import SCHEDULERS, problem_with

# diffusers' schedulers hand tensors to numpy functions in a way that numpy 2 deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]

NAMES = ("sd15", "sdxl")
PARTS = {"sd15": ["unet", "text_encoder"], "sdxl": ["unet", "text_encoder", "text_encoder_2"]}


@pytest.fixture(scope="module")
def models():
    return ModelCache(choose_hardware("cpu"), capacity=2, adapters=Limits(count=2))


@pytest.fixture(scope="module")
def model_of(folders, models):
    def model_of(name):
        reference = make_request(folders[name]).model
        return models.find(reference) or models.load(reference)

    return model_of


@pytest.fixture
def draw(folders, models, model_of):
    def draw(name="sd15", *, watcher=None, **fields):
        model = model_of(name)
        request = make_request(folders[name], **fields)
        return render(model, request, watcher or Watcher(), lambda: models.spare_memory(model)).pixels

    return draw


def make_request(source, **fields):
    message = {
        "id": "job",
        "model": {"source": str(source), "kind": "folder"},
        "prompt": "a red heart",
        "seed": 1,
        "steps": 3,
        "width": 64,
        "height": 64,
        "guidance_scale": 7.5,
        "output": "/nowhere.png",
    }
    return GenerateRequest.parse(message | fields)


@pytest.fixture(scope="module")
def stack_of(model_of, tmp_path_factory):
    """Return adapters as a request names them; their files are made once."""
    folder, files = tmp_path_factory.mktemp("adapters"), {}

    def stack_of(name, *weights, first=0):
        stack = []
        for number, weight in enumerate(weights, start=first):
            if (name, number) not in files:
                model_of(name).adapters.clear()
                changes = tiny_adapters.make_changes(
                    model_of(name).pipeline, parts=PARTS[name], seed=number, strength=2.0
                )
                files[name, number] = tiny_adapters.write_kohya(
                    folder / f"{name}-{number}.safetensors", changes, is_sdxl=name == "sdxl"
                )
            stack.append({"id": str(number), "source": str(files[name, number]), "weight": weight})
        return stack

    return stack_of


@pytest.mark.parametrize("name", NAMES)
class TestStacks:
    def test_every_weight_counts(self, draw, stack_of, name):
        pictures = {
            draw(name, adapters=stack_of(name, *weights)).tobytes()
            for weights in [(), (1.0,), (0.5,), (-1.0,), (1.0, 1.0), (0.0, 1.0)]
        }

        assert len(pictures) == 6

    def test_weight_zero_is_no_adapter_to_the_bit(self, draw, stack_of, name):
        plain, one = draw(name), draw(name, adapters=stack_of(name, 0.8))

        assert np.array_equal(draw(name, adapters=stack_of(name, 0.0)), plain)
        assert np.array_equal(draw(name, adapters=stack_of(name, 0.8, 0.0)), one)

    def test_the_base_is_as_it_was_whatever_came_between(self, draw, stack_of, model_of, name):
        plain = draw(name)
        for first in range(3):
            draw(name, adapters=stack_of(name, 1.0, -0.5, first=first))
            assert np.array_equal(draw(name), plain)

        model_of(name).adapters.clear()

        assert np.array_equal(draw(name), plain)
        assert not any("lora" in key for key in model_of(name).pipeline.unet.state_dict())

    def test_the_same_stack_gives_the_same_pixels_after_it_was_let_go(self, draw, stack_of, model_of, name):
        first = draw(name, adapters=stack_of(name, 1.0, 0.3))
        draw(name, adapters=stack_of(name, 1.0, 1.0, first=2))  # the shelf holds two

        assert np.array_equal(draw(name, adapters=stack_of(name, 1.0, 0.3)), first)

    def test_switching_keeps_few_and_loads_no_base(self, draw, stack_of, model_of, models, name):
        loads, shelf = models.loads, model_of(name).adapters
        shelf.clear()
        before = shelf.loads

        draw(name, adapters=stack_of(name, 1.0, 1.0))
        draw(name, adapters=stack_of(name, 0.5, 1.0))
        draw(name)
        draw(name, adapters=stack_of(name, 1.0))
        draw(name, adapters=stack_of(name, 1.0, 1.0, 1.0))  # more than may stay, but one stack always fits

        assert shelf.loads - before == 3
        assert models.loads == loads
        draw(name, adapters=stack_of(name, 1.0, first=3))
        assert [resident.id for resident in shelf.residents] == ["2", "3"]

    def test_a_broken_adapter_fails_its_request_and_no_other(self, draw, stack_of, name, tmp_path):
        plain, good = draw(name), draw(name, adapters=stack_of(name, 1.0))
        broken = tmp_path / "broken.safetensors"
        broken.write_bytes(b"nothing")

        for _ in range(2):
            with pytest.raises(RequestFailed) as caught:
                stack = [*stack_of(name, 1.0), {"id": "b", "source": str(broken), "weight": 1.0}]
                draw(name, adapters=stack)
            assert caught.value.code == FailureCode.ADAPTER_INCOMPATIBLE
            assert np.array_equal(draw(name), plain)
            assert np.array_equal(draw(name, adapters=stack_of(name, 1.0)), good)

    def test_a_file_written_anew_is_another_adapter(self, draw, stack_of, model_of, name, tmp_path):
        (adapter,) = stack_of(name, 1.0)
        file = tmp_path / "mine.safetensors"
        file.write_bytes(open(adapter["source"], "rb").read())  # noqa: SIM115, PTH123
        mine = [adapter | {"source": str(file)}]
        first = draw(name, adapters=mine)
        (other,) = stack_of(name, 1.0, first=1)
        file.write_bytes(open(other["source"], "rb").read() + b"")  # noqa: SIM115, PTH123

        assert not np.array_equal(draw(name, adapters=mine), first)

    def test_what_is_remembered_of_a_prompt_does_not_leak_into_another_stack(
        self, draw, stack_of, model_of, name
    ):
        stacks = [[], stack_of(name, 1.0), stack_of(name, 0.5), stack_of(name, 1.0, first=1)]
        fresh = []
        for stack in stacks:
            model_of(name).prompts.forget()
            fresh.append(draw(name, adapters=stack, prompt="a green leaf"))

        model_of(name).prompts.forget()
        again = [draw(name, adapters=stack, prompt="a green leaf") for stack in stacks * 2]

        for picture, expected in zip(again, fresh * 2, strict=True):
            assert np.array_equal(picture, expected)


def test_memory_that_ran_out_is_survived_with_a_stack(draw, stack_of, model_of, monkeypatch):
    expected = draw(adapters=stack_of("sd15", 1.0, 0.5))
    vae = model_of("sd15").pipeline.vae
    decode, calls = vae.decode, []

    def decode_or_fail(*args, **kwargs):
        calls.append(len(model_of("sd15").adapters.residents))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(*args, **kwargs)

    monkeypatch.setattr(vae, "decode", decode_or_fail)

    again = draw(adapters=stack_of("sd15", 1.0, 0.5))

    assert len(calls) == 2
    assert np.abs(again.astype(int) - expected).max() <= 1
    assert np.array_equal(draw(adapters=stack_of("sd15", 1.0, 0.5)), expected)


@pytest.fixture
def photo(tmp_path):
    pixels = np.linspace(0, 255, 96 * 128 * 3).reshape(96, 128, 3).astype(np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return str(path)


@pytest.mark.parametrize("name", NAMES)
class TestImageToImage:
    def test_starts_from_the_picture_and_listens_to_the_strength(self, draw, photo, name):
        plain = draw(name, steps=6)
        pictures = [draw(name, steps=6, init_image=photo, strength=strength) for strength in (0.2, 0.5, 1.0)]

        assert len({picture.tobytes() for picture in [plain, *pictures]}) == 4
        assert np.array_equal(draw(name, steps=6), plain)

    def test_gives_the_size_asked_for(self, draw, photo, name):
        assert draw(name, init_image=photo, strength=0.5, width=64, height=128).shape == (128, 64, 3)

    def test_loads_nothing_again(self, draw, photo, model_of, models, name):
        loads = models.loads
        draw(name, init_image=photo, strength=0.5)

        assert models.loads == loads
        assert model_of(name).image_to_image.unet is model_of(name).pipeline.unet

    def test_works_with_adapters_and_is_repeatable(self, draw, photo, stack_of, name):
        fields = {"init_image": photo, "strength": 0.6, "adapters": stack_of(name, 1.0)}
        first = draw(name, **fields)
        draw(name)

        assert np.array_equal(draw(name, **fields), first)
        assert not np.array_equal(draw(name, init_image=photo, strength=0.6), first)

    @pytest.mark.parametrize("scheduler", SCHEDULERS)
    def test_works_with_every_scheduler(self, draw, photo, name, scheduler):
        for steps, strength in [(4, 0.25), (6, 0.5), (5, 0.999), (4, 1.0)]:
            assert problem_with(scheduler, steps=steps, strength=strength) is None

            draw(name, init_image=photo, scheduler=scheduler, steps=steps, strength=strength)

    def test_refuses_a_strength_that_leaves_nothing_to_do(self, draw, photo, name):
        with pytest.raises(RequestFailed, match="at least 1"):
            draw(name, init_image=photo, steps=3, strength=0.3)


def test_a_picture_that_cannot_be_read_is_the_requests_fault(draw, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for file in ("text.png", "gone.png"):
        with pytest.raises(RequestFailed) as caught:
            draw(init_image=str(tmp_path / file), strength=0.9)
        assert caught.value.code == FailureCode.INIT_IMAGE_INVALID
        assert str(tmp_path) not in caught.value.detail


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_table_of_schedulers_tells_what_works(draw, scheduler):
    """What the API lets through, the engine can do; what it refuses, the engine refuses too."""
    for steps in range(1, 6):
        if problem_with(scheduler, steps=steps):
            with pytest.raises(RequestFailed):
                draw(scheduler=scheduler, steps=steps)
        else:
            draw(scheduler=scheduler, steps=steps)


class TestPromptSyntax:
    @pytest.mark.parametrize(
        "prompt",
        [
            "a heart",
            "a (red) heart",
            "((red)) heart",
            "16:9 (16:9) (ratio 1:1)",
            "C++ and [red:blue:0.5]",
            "(red:2.5)",
            "(red:-1.0)",
            "(red:1)",
            "(red:1.5",
            "red:1.5)",
            "  spaces   stay ",
            "",
        ],
    )
    def test_of_ordinary_text_is_the_text(self, prompt):
        (fragment,) = parse_prompt(prompt)

        assert (fragment.text, fragment.weight) == (prompt, 1.0)

    @pytest.mark.parametrize(
        ("prompt", "expected"),
        [
            ("a (red:1.3) heart", [("a", 1.0), ("red", 1.3), ("heart", 1.0)]),
            ("(red heart:0.5), (white:2.0)", [("red heart", 0.5), (",", 1.0), ("white", 2.0)]),
            ("(a:b: .25 )", [("a:b", 0.25)]),
            ("((red:1.3))", [("(", 1.0), ("red", 1.3), (")", 1.0)]),
            (r"(name \(series\):1.1)", [("name (series)", 1.1)]),
            (r"\(red:1.3)", [("(red:1.3)", 1.0)]),
            (r"name \(series\)", [("name (series)", 1.0)]),
        ],
    )
    def test_of_weights(self, prompt, expected):
        assert [(fragment.text, fragment.weight) for fragment in parse_prompt(prompt)] == expected


@pytest.mark.parametrize("name", NAMES)
class TestPrompts:
    def test_weights_are_heard(self, draw, name):
        prompts = [
            "a red heart",
            "a (red:1.8) heart",
            "a (red:0.3) heart",
            "a (red:0.0) heart",
            "a red (heart:1.8)",
        ]

        assert len({draw(name, prompt=prompt).tobytes() for prompt in prompts}) == len(prompts)

    def test_a_weight_of_one_is_no_weight(self, draw, name):
        assert np.array_equal(draw(name, prompt="a (red:1.0) heart"), draw(name, prompt="a red heart"))

    def test_the_end_of_a_long_prompt_is_heard(self, draw, name):
        words = "many words that say little " * 9
        pictures = {draw(name, prompt=words + end).tobytes() for end in ("red", "green", "")}

        assert len(pictures) == 3

    def test_long_and_short_prompts_go_together(self, draw, name):
        words = "many words that say little " * 9
        for prompt, negative in [(words, ""), (words, "blur"), ("a heart", words), (words, words + words)]:
            first = draw(name, prompt=prompt, negative_prompt=negative)
            assert np.array_equal(draw(name, prompt=prompt, negative_prompt=negative), first)

    @pytest.mark.parametrize(
        "prompt",
        [
            "(a:1.2)" * 30,
            "(word:0.5) " * 25,
            "word, " * 40 + "(end. of; it:0.2)" + "word, " * 40,
            "♥ (♥:0.5) 日本語(文:1.5)\n\n(x:0.0)",
            "(" * 200 + "(a:1.5)",
            "<|endoftext|> (b:0.5) <|startoftext|> c",
            "a" * 400 + "(b:0.7)",
            "(!:0.1)(!:0.1)! ! !",
            "(  :1.5) x",
        ],
    )
    def test_any_text_can_be_weighted(self, draw, name, prompt):
        assert draw(name, prompt=prompt, negative_prompt=prompt[::-1]).std() > 0

    def test_a_prompt_is_read_once(self, draw, model_of, name):
        reader = model_of(name).prompts
        draw(name, prompt="something new")
        before = reader.hits

        draw(name, prompt="something new", seed=5)

        assert reader.hits >= before + 1


class Listener(Watcher):
    def __init__(self, *, looks_on=True):
        self.previews, self.looks_on = [], looks_on

    def wants_previews(self):
        return self.looks_on

    def preview(self, step, jpeg):
        self.previews.append((step, Image.open(io.BytesIO(base64.b64decode(jpeg)))))


class TestPreviews:
    def test_are_small_jpegs_and_rare(self, draw, model_of, monkeypatch):
        clock = iter(np.arange(0, 1000, 0.1))
        monkeypatch.setattr(previews.time, "monotonic", lambda: next(clock))
        model_of("sd15").previewer._last = -10.0
        listener = Listener()

        draw(watcher=listener, steps=8, width=512, height=256)

        steps = [step for step, _ in listener.previews]
        assert steps == [1, 4, 7]
        assert {picture.size for _, picture in listener.previews} == {(256, 128)}
        assert {picture.format for _, picture in listener.previews} == {"JPEG"}

    def test_are_made_only_when_asked_for(self, draw):
        listener = Listener(looks_on=False)

        draw(watcher=listener, steps=20)

        assert listener.previews == []

    @pytest.mark.parametrize("name", NAMES)
    def test_change_no_pixel(self, draw, model_of, name):
        plain = draw(name)
        model_of(name).previewer._last = 0.0
        listener = Listener()

        assert np.array_equal(draw(name, watcher=listener), plain)
        assert listener.previews

    def test_never_fail_a_picture(self, draw, model_of, monkeypatch):
        plain = draw()
        previewer = previews.Previewer(model_of("sd15").pipeline)
        monkeypatch.setattr(model_of("sd15"), "previewer", previewer)
        monkeypatch.setattr(previews, "fit", lambda _: 1 / 0)
        listener = Listener()

        assert np.array_equal(draw(watcher=listener), plain)
        assert listener.previews == []

    def test_of_a_model_in_half_precision_leave_its_weights_as_they_were(self, folders):
        from diffusers import AutoencoderKL

        vae = AutoencoderKL.from_pretrained(folders["sd15"] / "vae", dtype=torch.float16)
        vae.register_to_config(force_upcast=True)
        before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}

        assert torch.isfinite(previews.fit(vae)).all()
        assert vae.dtype == torch.float16
        assert all(torch.equal(tensor, before[name]) for name, tensor in vae.state_dict().items())

    def test_look_like_what_the_starter_model_draws(self):
        """The one real VAE there is: flat colours come back as themselves."""
        from diffusers import AutoencoderKL

        from training.starter import MODEL_DIR

        vae = AutoencoderKL.from_pretrained(MODEL_DIR / "vae", dtype=torch.float32)
        matrix = previews.fit(vae)
        picture = torch.full((1, 3, 64, 64), -1.0)
        picture[:, 0, :, 32:] = 1.0  # the right half is red, the left black
        with torch.inference_mode():
            latents = vae.encode(picture).latent_dist.mode() * vae.config.scaling_factor
        colours = previews._colours(latents[0], matrix).astype(int)

        assert np.abs(colours[4, 1] - [0, 0, 0]).max() < 60
        assert np.abs(colours[4, 6] - [255, 0, 0]).max() < 60
