"""Somebody else's trainer runs under the same guard, and what it makes is looked at before it is taken in."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from imagehub.config_schema import ExternalTrainerConfig
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.protocol import ExitCode
from imagehub.jobs.tasks import answer_doorbell
from imagehub.tests.together import beside
from training.datasets.manifest import Entry, manifest
from training.external.order import Order
from training.models import Adapter, TrainingRun
from training.pipelines.failures import RequestFailed
from training.services import runs
from training.services.run_folders import folder_of
from training.tests.factories import TrainingRunFactory
from training.tests.formats.runs import make_run
from training.trainer.assignment import Assignment

ROOT = Path(__file__).parents[2]
PLAYS = str(ROOT / "training" / "tests" / "programs" / "play_external.py")
COMMAND = [sys.executable, PLAYS, "{WAY}", "{dataset}", "{output}", "{name}", "{config.rank}"]
PROGRESS = ExternalTrainerConfig(command=("x",)).progress


def command(way):
    return [argument.replace("{WAY}", way) for argument in COMMAND]


@pytest.fixture
def folder(tmp_path):
    """The folder of a run on three pictures, one of which is kept apart."""
    run = make_run(tmp_path / "run", name="Zorps", recipe={"rank": 5})
    run.images.mkdir()
    entries = []
    for number, (kind, role, repeats) in enumerate(
        [("PNG", "train", 2), ("JPEG", "train", 10), ("PNG", "validation", 1)]
    ):
        sha256 = f"{number:064x}"
        Image.new("RGB", (64, 64), (number * 40, 0, 0)).save(run.images / sha256, kind)
        entries.append(Entry(sha256, f"a zorp, number {number}", role, repeats, (64, 64), (64, 64)))
    run.manifest.write_text(manifest(entries).to_json())
    return run


def start(folder, way, **order):
    Order(**{"command": tuple(command(way)), "progress": PROGRESS, "result": "*.safetensors"} | order).write(
        folder
    )
    return subprocess.Popen(
        [sys.executable, "-m", "training.external", str(folder.root)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(process):
    output, errors = process.communicate(timeout=60)
    return [json.loads(line) for line in output.splitlines()], errors.decode()


def carry_out(folder, way="well", **order):
    process = start(folder, way, **order)
    events, errors = finish(process)
    return process.returncode, events, errors


def the(name, events):
    return next(event for event in events if event["event"] == name)


class TestProgram:
    def test_what_it_prints_becomes_progress(self, folder):
        status, events, log = carry_out(folder)

        assert status == ExitCode.FINISHED
        steps = [event for event in events if event["event"] == "step"]
        assert [event["step"] for event in steps] == sorted({event["step"] for event in steps})
        assert (steps[-1]["step"], steps[-1]["total"], steps[-1]["loss"]) == (8, 8, 0.125)
        assert steps[-1]["points"][0][:2] == [8, 0.125]
        assert "caching latents" in log

    def test_the_last_file_is_the_result(self, folder):
        _, events, _ = carry_out(folder)

        finished = the("finished", events)
        assert finished["file"] == "external/output/deep/Zorps.safetensors"
        assert (finished["step"], finished["training_loss"]) == (8, 0.125)
        assert (folder.root / finished["file"]).stat().st_size == finished["size_bytes"]

    def test_it_gets_pictures_and_captions_as_sd_scripts_reads_them(self, folder):
        _, _, log = carry_out(folder, "no result")

        dataset = folder.root / "external" / "dataset"
        found = sorted(str(path.relative_to(dataset)) for path in dataset.rglob("*.*"))
        assert [re.sub("-0{11}.", "", name) for name in found] == [
            "10_zorp/000001.jpg",
            "10_zorp/000001.txt",
            "2_zorp/000000.png",
            "2_zorp/000000.txt",
        ]
        assert "found 2 captions ['a zorp, number 0', 'a zorp, number 1']" in log

    def test_its_pictures_are_copies(self, folder):
        carry_out(folder, "no result")

        copies = (folder.root / "external" / "dataset").rglob("*.png")
        assert {path.stat().st_nlink for path in copies} == {1}

    @pytest.mark.parametrize(
        ("way", "status", "code", "detail"),
        [
            ("fails", ExitCode.BAD_REQUEST, "bad_request", "ended with exit status 3"),
            ("dies", ExitCode.BUG, "trainer_error", "killed from outside"),
            (
                "no result",
                ExitCode.BAD_REQUEST,
                "bad_request",
                "left no file that is called like “*.safetensors”",
            ),
            ("rubbish", ExitCode.BAD_REQUEST, "bad_request", "cannot be used"),
        ],
    )
    def test_what_goes_wrong_is_told(self, folder, way, status, code, detail):
        ended, events, _ = carry_out(folder, way)

        error = the("error", events)
        assert (ended, error["code"]) == (status, code)
        assert detail in error["detail"]
        assert str(folder.root) not in error["detail"]
        assert not [event for event in events if event["event"] == "finished"]

    def test_a_program_that_is_not_there_is_told(self, folder):
        status, events, _ = carry_out(folder, command=("/nowhere/train",))

        assert status == ExitCode.BAD_REQUEST
        assert the("error", events)["detail"] == (
            "The external trainer cannot be started: No such file or directory."
        )

    def test_a_picture_that_is_none_is_told(self, folder):
        (folder.images / f"{0:064x}").write_bytes(b"no picture")

        status, events, _ = carry_out(folder)

        assert (status, the("error", events)["code"]) == (ExitCode.BAD_DATA, "dataset_invalid")

    @pytest.mark.parametrize("how", ["signal", "request"])
    def test_it_ends_when_it_is_asked_to(self, folder, how):
        process = start(folder, "is slow")
        first = iter(process.stdout.readline, b"")
        while json.loads(next(first))["event"] != "step":
            pass

        if how == "signal":
            process.send_signal(signal.SIGTERM)
        else:
            process.stdin.write(b'{"type": "stop", "save": true}\n')
            process.stdin.flush()
        events, _ = finish(process)

        assert process.returncode == ExitCode.INTERRUPTED
        assert the("stopped", events)["saved"] is False


class TestOrder:
    def test_everything_that_the_recipe_says_can_be_filled_in(self, tmp_path):
        run = make_run(
            tmp_path, name="Zorps", recipe={"target_modules": ("to_q", "to_k"), "max_grad_norm": None}
        )
        names = ["rank", "alpha", "target_modules", "random_flip", "max_grad_norm", "learning_rate"]
        order = Order(tuple(f"--{name}={{config.{name}}}" for name in names), PROGRESS, "*")

        filled = order.arguments(Assignment.read(run), dataset=tmp_path, output=tmp_path)

        assert filled == [
            "--rank=4",
            "--alpha=2.0",
            "--target_modules=to_q,to_k",
            "--random_flip=true",
            "--max_grad_norm=",
            "--learning_rate=0.0001",
        ]

    def test_values_are_not_looked_into(self, tmp_path):
        run = make_run(tmp_path, trigger_word="{model} $(touch x); `y`")
        order = Order(("{trigger_word}", "{{name}}", "{}", "{NAME}"), PROGRESS, "*")

        filled = order.arguments(Assignment.read(run), dataset=tmp_path, output=tmp_path)

        assert filled == ["{model} $(touch x); `y`", "{Zorps-of-Ümläut}", "{}", "{NAME}"]

    @pytest.mark.parametrize("name", ["{nonsense}", "{config.secret}", "{config}"])
    def test_what_there_is_not_is_refused(self, tmp_path, name):
        order = Order((f"--x={name}",), PROGRESS, "*")

        with pytest.raises(RequestFailed, match=re.escape(name)):
            order.arguments(Assignment.read(make_run(tmp_path)), dataset=tmp_path, output=tmp_path)

    @pytest.mark.parametrize(
        ("line", "found"),
        [
            ("steps:  10%|#  | 160/1600 [00:10<01:30, 16.0it/s, avr_loss=0.0912]", ("160", "1600", "0.0912")),
            ("steps:   0%|   | 1/1600 [00:10<01:30, 16.0it/s]", ("1", "1600", None)),
            ("caching latents: 100%|###| 20/20 [00:10<00:00]", None),
        ],
    )
    def test_the_progress_of_sd_scripts_is_understood(self, line, found):
        match = re.search(PROGRESS, line)

        assert (match and match.group("step", "total", "loss")) == found


@pytest.mark.django_db
class TestSupervised:
    @pytest.fixture
    def trains(self, set_config):
        def train(way, *, answer=True):
            set_config(
                "storage: {minimum_free_bytes: 0}\n"
                f"training: {{grace_seconds: 3, external: {{command: {json.dumps(command(way))}}}}}\n"
            )
            run = TrainingRunFactory(queued=True, name="Zebras", recipe={"rank": 6})
            if answer:
                answer_doorbell(Cluster.TRAINING)
                run.refresh_from_db()
            return run

        return train

    def test_its_adapter_is_registered(self, trains):
        run = trains("well")

        assert (run.status, run.error_detail, run.step) == (JobStatus.COMPLETED, "", 8)
        assert run.training_loss == 0.125
        adapter = Adapter.objects.get()
        assert (run.adapter, adapter.rank, adapter.training_run, adapter.training_step) == (
            adapter,
            6,
            run,
            8,
        )
        assert (adapter.name, adapter.architecture) == ("Zebras", "sd1")
        assert run.metrics.filter(step=8).exists()
        assert "steps:" in folder_of(run).log.read_text()

    def test_its_failure_is_the_run_s_and_is_not_tried_again(self, trains):
        run = trains("fails")

        assert (run.status, run.error_code, run.attempt) == (JobStatus.FAILED, "bad_request", 1)
        assert run.error_detail == "The external trainer ended with exit status 3; the run log says why."

    def test_one_that_was_killed_is_tried_again(self, trains):
        run = trains("dies")

        assert (run.status, run.error_code, run.attempt) == (JobStatus.FAILED, "trainer_error", 3)

    @pytest.mark.django_db(transaction=True)
    def test_one_that_does_not_listen_is_ended(self, trains):
        run = trains("ignores TERM", answer=False)

        worker = beside(lambda: answer_doorbell(Cluster.TRAINING))
        while not TrainingRun.objects.filter(pk=run.pk, step__gt=0).exists():
            time.sleep(0.05)

        runs.cancel_run(run)
        worker.join(timeout=30)

        run.refresh_from_db()
        assert run.status == JobStatus.CANCELLED
        found = subprocess.run(
            ["pgrep", "-f", f"play_external.py .*{run.pk}"], capture_output=True, check=False
        )
        assert found.stdout == b""
