import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from training.labeler import program
from training.labeler.findings import Finding, NothingFound, Said
from training.labeler.starter import StarterLabeler
from training.pipelines.failures import FailureCode, RequestFailed
from training.pipelines.references import ModelKind
from training.starter.captions import plain_caption
from training.starter.drawings import Combination, Drawing, all_combinations, draw, random_drawing
from training.tests.labeling.networks import WORDS, write_captioner, write_classifier


def options(task, model, **values):
    chosen = {
        "task": task,
        "model": str(model),
        "name": Path(model).name,
        "kind": ModelKind.FOLDER,
        "device": "cpu",
        "threads": 1,
        "tag_threshold": 0.35,
        "allow_download": False,
    }
    return program.Options(**chosen | values)


@pytest.fixture
def files(tmp_path):
    paths = []
    for shape, color in (("heart", "red"), ("star", "blue")):
        paths.append(tmp_path / f"{shape}.png")
        draw(Drawing(shape, color, "white")).save(paths[-1])
    return paths


def label(task, picture):
    (found,) = StarterLabeler(task).label([picture])
    return found


class TestStarter:
    def test_nearly_all_drawings_are_described_as_they_are(self):
        rng = np.random.default_rng(3)
        drawings = [random_drawing(rng, all_combinations()) for _ in range(100)]

        said = StarterLabeler("caption").label([draw(drawing) for drawing in drawings])

        right = sum(
            isinstance(found, Finding) and found.said[0].text == plain_caption(drawing.combination)
            for found, drawing in zip(said, drawings, strict=True)
        )
        assert right >= 98

    def test_a_larger_drawing_is_described_too(self):
        large = draw(Drawing("star", "blue", "yellow")).resize((300, 300))

        assert label("caption", large).said[0].text == "a blue star on a yellow background"

    def test_tags_are_the_parts_of_the_caption(self):
        found = label("tag", draw(Drawing("heart", "red", "white")))

        assert [said.text for said in found.said] == ["heart", "red", "white background"]
        assert all(0.75 < said.confidence <= 1 for said in found.said)

    @pytest.mark.parametrize("task", ["caption", "tag", "nsfw"])
    def test_of_what_is_no_drawing_nothing_is_said_and_least_of_all_that_it_is_safe(self, task):
        noise = PIL.Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
        strip = draw(Drawing("heart", "red", "white")).resize((64, 20))

        for picture in (noise, strip, PIL.Image.new("RGB", (64, 64), "red")):
            assert isinstance(label(task, picture), NothingFound)

    def test_a_drawing_is_safe(self):
        assert label("nsfw", draw(Drawing("heart", "red", "white"))).unfit == 0.0


class TestNetworks:
    def test_a_captioner_writes_the_same_of_the_same_picture(self, tmp_path, files):
        labeler = program.load(options("caption", write_captioner(tmp_path / "blip")))

        found = program.label_files(labeler, files)
        again = program.label_files(labeler, files[:1])

        assert labeler.name == "blip"
        texts = [finding.said[0].text for _, finding in found]
        assert all(set(text.split()) <= set(WORDS) for text in texts)
        assert again[0][1] == found[0][1]

    def test_a_tagger_says_what_it_is_sure_of(self, tmp_path, files):
        folder = write_classifier(
            tmp_path / "tagger",
            ["red_heart", "star"],
            sure_of="red_heart",
            problem_type="multi_label_classification",
        )

        (_, found), _ = program.label_files(program.load(options("tag", folder)), files)

        assert [said.text for said in found.said] == ["red heart"]
        assert found.said[0].confidence == pytest.approx(1 / (1 + np.exp(-5)), abs=1e-4)

    def test_a_tagger_that_is_sure_of_nothing_says_nothing(self, tmp_path, files):
        folder = write_classifier(tmp_path / "tagger", ["a", "b"], sure_of="a")

        (_, found), _ = program.label_files(program.load(options("tag", folder, tag_threshold=1.0)), files)

        assert isinstance(found, NothingFound)

    @pytest.mark.parametrize(("sure_of", "is_unfit"), [("normal", False), ("porn", True), ("sexy", True)])
    def test_a_judge_adds_up_what_is_unfit(self, tmp_path, files, sure_of, is_unfit):
        folder = write_classifier(tmp_path / "judge", ["normal", "porn", "sexy"], sure_of=sure_of)

        (_, found), _ = program.label_files(program.load(options("nsfw", folder)), files)

        assert found.said == ()
        assert (found.unfit > 0.99) is is_unfit
        assert (found.unfit < 0.01) is not is_unfit

    @pytest.mark.parametrize("labels", [["cat", "dog"], ["normal", "porn", "cat"], ["safe", "normal"]])
    def test_a_network_with_other_labels_is_no_judge(self, tmp_path, labels):
        folder = write_classifier(tmp_path / "judge", labels)

        with pytest.raises(RequestFailed, match="do not say which pictures are unfit"):
            program.load(options("nsfw", folder))

    def test_a_network_that_gives_no_number_says_nothing(self, tmp_path, files):
        import torch

        labeler = program.load(options("nsfw", write_classifier(tmp_path / "judge", ["normal", "nsfw"])))
        with torch.no_grad():
            labeler._model.classifier.bias.fill_(float("nan"))

        assert all(isinstance(found, NothingFound) for _, found in program.label_files(labeler, files))
        labeler._task = "tag"
        assert all(isinstance(found, NothingFound) for _, found in program.label_files(labeler, files))

    def test_one_picture_does_not_spoil_the_others(self, tmp_path, files):
        labeler = program.load(options("nsfw", write_classifier(tmp_path / "judge", ["normal", "nsfw"])))
        look = labeler.label

        def stumble(pictures):
            if len(pictures) > 1 or pictures[0].getpixel((32, 32)) == (220, 30, 35):
                raise RuntimeError("no such kernel")
            return look(pictures)

        labeler.label = stumble
        damaged = tmp_path / "damaged.png"
        damaged.write_bytes(files[0].read_bytes()[:50])

        found = [finding for _, finding in program.label_files(labeler, [*files, damaged])]

        assert [type(finding) for finding in found] == [NothingFound, Finding, NothingFound]
        assert "cannot be read" in str(found[2])

    def test_whatever_a_decoder_makes_of_a_damaged_file_it_is_one_picture(self, files):
        # An empty color profile behind the pixels: Pillow lets an IndexError through.
        content = files[0].read_bytes()
        empty = bytes(4) + b"iCCP" + zlib.crc32(b"iCCP").to_bytes(4, "big")
        files[0].write_bytes(content[:-12] + empty + content[-12:])

        found = [finding for _, finding in program.label_files(StarterLabeler("caption"), files)]

        assert [type(finding) for finding in found] == [NothingFound, Finding]

    @pytest.mark.parametrize("task", ["caption", "nsfw"])
    def test_what_is_missing_or_no_model_is_told_without_its_place(self, tmp_path, task):
        (tmp_path / "empty").mkdir()

        for name, code in (("nowhere", FailureCode.MODEL_MISSING), ("empty", FailureCode.MODEL_INVALID)):
            with pytest.raises(RequestFailed) as caught:
                program.load(options(task, tmp_path / name))
            assert caught.value.code == code
            assert str(tmp_path) not in caught.value.detail

    def test_pickled_weights_are_not_loaded(self, tmp_path):
        import torch

        folder = write_classifier(tmp_path / "judge", ["normal", "nsfw"])
        torch.save({}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()

        with pytest.raises(RequestFailed):
            program.load(options("nsfw", folder))

    def test_a_hub_id_that_is_not_here_is_not_fetched(self, monkeypatch):
        with pytest.raises(RequestFailed) as caught:
            program.load(options("nsfw", "nobody/nothing", kind=ModelKind.HUB))

        assert caught.value.code == FailureCode.MODEL_MISSING


def test_numbers_that_mean_nothing_are_no_finding():
    for number in (float("nan"), 1.5, -0.1):
        with pytest.raises(NothingFound):
            Finding(unfit=number)
        with pytest.raises(NothingFound):
            Finding((Said("x", number),))


def test_nudenet_judges(tmp_path, files):
    pytest.importorskip("nudenet")
    labeler = program.load(options("nsfw", "nudenet"))

    assert all(finding.unfit < 0.5 for _, finding in program.label_files(labeler, files))


def test_nudenet_only_judges():
    with pytest.raises(RequestFailed, match="only tells what is unfit"):
        program.load(options("caption", "nudenet"))


def test_by_hand_it_prints_what_it_says_of_each_file(files):
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "training.labeler",
            "--task",
            "caption",
            "--model",
            "starter",
            *map(str, files),
        ],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        check=True,
        text=True,
    )

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["said"][0]["text"] for line in lines] == [
        plain_caption(Combination("heart", "red", "white")),
        plain_caption(Combination("star", "blue", "white")),
    ]
