import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from PIL import Image

from training.starter import MODEL_DIR
from training.starter.evaluation import Accuracy, clean_drawings, contact_sheet
from training.starter.publishing import load


def _run(*options):
    output = StringIO()
    call_command("train_starter_model", *options, stdout=output)
    return output.getvalue()


def _measurements(output):
    return json.loads(output[output.index("{\n") :])


def test_it_trains_measures_and_publishes_a_model(tmp_path):
    folder, sheet = tmp_path / "model", tmp_path / "sheet.png"

    output = _run(
        "--quick",
        "--seed=7",
        f"--output={folder}",
        f"--work-dir={tmp_path / 'work'}",
        f"--contact-sheet={sheet}",
    )

    assert "denoiser: step 4 of 4" in output
    assert output.index("judge on clean drawings") < output.index("held-out prompts:")
    assert _measurements(output)["judge_on_drawings"] == {
        "pictures": 10,
        "foreground": 1,
        "background": 1,
        "shape": 1,
    }
    assert load(folder).vae_scale_factor == 8
    assert Image.open(sheet).format == "PNG"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card
    assert "train_starter_model --seed 7" in card


def test_it_measures_a_model_without_training(tmp_path):
    output = _run("--quick", "--evaluate-only", f"--output={MODEL_DIR}", f"--work-dir={tmp_path / 'work'}")

    assert _measurements(output)["judge_on_reconstructions"]["shape"] >= 0.9
    assert "loss" not in output
    assert not (tmp_path / "work").exists()


def test_it_says_when_there_is_nothing_to_measure(tmp_path):
    with pytest.raises(CommandError, match="holds no diffusers model"):
        _run("--evaluate-only", f"--output={tmp_path}")


@pytest.mark.parametrize(
    ("shares", "meets"),
    [((0.98, 0.98, 0.95), True), ((0.97, 1, 1), False), ((1, 0.97, 1), False), ((1, 1, 0.94), False)],
)
def test_the_bar_is_98_98_95(shares, meets):
    assert Accuracy(96, *shares).meets_bar() is meets


def test_accuracy_is_the_share_of_right_pictures():
    pictures = clean_drawings(12)
    (asked, _), (_, other) = pictures[0], pictures[1]

    accuracy = Accuracy.of([*pictures[:3], (asked, other)])

    assert accuracy.pictures == 4
    assert min(accuracy.foreground, accuracy.background, accuracy.shape) == 0.75


def test_a_contact_sheet_frames_wrong_pictures_only():
    pictures = clean_drawings(3)
    (asked, _), (_, other) = pictures[0], pictures[1]

    sheet = contact_sheet([*pictures, (asked, other)], columns=2)

    assert sheet.size == (140, 140)
    assert sheet.getpixel((0, 0)) != (255, 0, 255)
    assert sheet.getpixel((139, 139)) == (255, 0, 255)


def test_a_quick_trial_does_not_overwrite_the_model_that_ships():
    before = (MODEL_DIR / "model_index.json").stat().st_mtime_ns

    with pytest.raises(CommandError, match="--output"):
        call_command("train_starter_model", "--quick")

    assert (MODEL_DIR / "model_index.json").stat().st_mtime_ns == before
