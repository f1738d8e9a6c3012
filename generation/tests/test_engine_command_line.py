import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from generation.tests import tiny_models
from imagehub.jobs.protocol import ExitCode

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


def test_says_by_its_exit_status_what_went_wrong(tmp_path):
    result = run("--prompt", "x", "--model", str(tmp_path / "gone"), "--output", str(tmp_path / "x.png"))

    assert result.returncode == ExitCode.MODEL_MISSING
    assert "“gone” is not on this machine" in result.stderr
