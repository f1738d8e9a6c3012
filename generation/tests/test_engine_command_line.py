import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from generation.tests.forked_engines import start_engine
from imagehub.jobs.protocol import ExitCode
from training.tests import tiny_models

ROOT = Path(__file__).parents[2]


def run(*arguments, python=()):
    return subprocess.run(
        [sys.executable, *python, "-m", "generation.engine", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.fixture
def run_forked(tmp_path):
    """Do the same without the wait for the imports."""

    def run(*arguments):
        outputs = [tmp_path / "stdout", tmp_path / "stderr"]
        for output in outputs:
            output.write_text("")
        process = start_engine(arguments, stdout=outputs[0], stderr=outputs[1])
        process.join(90)
        return subprocess.CompletedProcess(arguments, process.exitcode, *map(Path.read_text, outputs))

    return run


def test_help_does_not_wait_for_torch():
    result = run("--help", python=("-X", "importtime"))

    assert result.returncode == 0
    assert "--guidance-scale" in result.stdout
    assert "generation.engine" in result.stderr
    assert not [
        line for line in result.stderr.splitlines() if line.split()[-1] in ("torch", "diffusers", "django")
    ]


def test_refuses_half_a_command_line():
    result = run("--prompt", "a red heart")

    assert result.returncode == 2
    assert "--model" in result.stderr


def test_makes_one_picture_by_hand(tmp_path):
    model = tiny_models.build_sd15(tmp_path / "model")
    output = tmp_path / "x.png"

    result = run(
        "--prompt", "a red heart", "--model", str(model), "--output", str(output),
        "--steps", "2", "--size", "64x128", "--seed", "5", "--scheduler", "euler",
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(output)
    assert "step 2/2" in result.stderr
    with Image.open(output) as picture:
        assert picture.size == (64, 128)


def test_says_by_its_exit_status_what_went_wrong(run_forked, tmp_path):
    result = run_forked(
        "--prompt", "x", "--model", str(tmp_path / "gone"), "--output", str(tmp_path / "x.png")
    )

    assert result.returncode == ExitCode.MODEL_MISSING
    assert "“gone” is not on this machine" in result.stderr


def test_makes_a_picture_with_an_adapter_that_starts_from_another(run_forked, tmp_path):
    from diffusers import StableDiffusionPipeline

    from generation.tests import tiny_adapters

    model = tiny_models.build_sd15(tmp_path / "model")
    changes = tiny_adapters.make_changes(StableDiffusionPipeline.from_pretrained(model), parts=["unet"])
    adapter = tiny_adapters.write_kohya(tmp_path / "style.safetensors", changes)
    start, output = tmp_path / "start.png", tmp_path / "picture.png"
    Image.new("RGB", (64, 64), "red").save(start)
    drawing = ["--prompt", "x", "--model", str(model), "--steps", "4", "--size", "64x64"]

    result = run_forked(
        *drawing,
        "--adapter",
        f"{adapter}:0.5",
        "--init-image",
        str(start),
        "--strength",
        "0.5",
        "--output",
        str(output),
    )

    assert result.returncode == 0, result.stderr
    with Image.open(output) as picture:
        assert picture.size == (64, 64)
    broken = run_forked(*drawing, "--adapter", str(tmp_path / "none.safetensors"), "--output", str(output))
    assert broken.returncode == ExitCode.MODEL_MISSING
