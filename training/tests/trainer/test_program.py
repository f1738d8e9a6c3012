"""The trainer as a program of its own, as its guard starts it."""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from imagehub.jobs.protocol import Channel, ExitCode
from training.pipelines.failures import FailureCode, RequestFailed
from training.tests.trainer.rig import Recorder, make_rig, small_recipe
from training.trainer import program
from training.trainer.alone import alone_in
from training.trainer.assignment import Assignment
from training.trainer.checkpoint_files import steps_in
from training.trainer.endings import status_after
from training.trainer.stopping import Stop

ROOT = Path(__file__).parents[3]


def start(*arguments, **options):
    """Start the program by hand: its events come on standard output."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "training.trainer", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def events_of(output):
    return [json.loads(line) for line in output.splitlines()]


def test_it_trains_until_sigterm_goes_on_and_exports(tmp_path, tiny_folders):
    rig = make_rig(
        tmp_path / "run", tiny_folders["sd15"], small_recipe(steps=100_000, validation_every=20, batch_size=1)
    )
    rig.write()
    process = start(rig.root)
    first = []
    for line in process.stdout:
        first.append(json.loads(line))
        if first[-1]["event"] == "validation" and first[-1]["step"] == 20:
            process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    stopped = first[-1]

    assert process.returncode == ExitCode.STOPPED, log
    assert (stopped["event"], stopped["saved"]) == ("stopped", True)
    assert [event["seq"] for event in first] == list(range(1, len(first) + 1))
    assert str(tmp_path) not in "".join(map(json.dumps, first))

    done = stopped["step"]
    more = rig.but(steps=done + 2)
    more.write()
    output, log = start(rig.root).communicate("", timeout=120)
    second = events_of(output)

    assert second[-1]["event"] == "finished", log
    assert [event["resumed_from"] for event in second if event["event"] == "started"] == [done]
    assert (rig.root / second[-1]["file"]).is_file()


def test_it_makes_a_file_of_a_checkpoint(rig, tmp_path):
    result = rig(steps=2, checkpoint_every=1, validation_every=0).train()
    recorder, output = Recorder(), tmp_path / "out.safetensors"
    options = argparse.Namespace(export=1, layout="diffusers", output=output)

    assert program.export(result.folder, options, Channel(recorder, io.BytesIO())) == ExitCode.FINISHED

    (event,) = recorder.events
    assert (event["event"], event["step"], event["file"]) == ("finished", 1, "out.safetensors")
    assert output.is_file()


def test_a_checkpoint_that_is_not_there_makes_none(rig):
    result = rig(steps=1, validation_every=0).train()
    recorder = Recorder()
    options = argparse.Namespace(export=7, layout="kohya", output=None)

    assert program.export(result.folder, options, Channel(recorder, io.BytesIO())) == ExitCode.BAD_REQUEST
    assert recorder.events[0]["code"] == "bad_request"


@pytest.mark.parametrize(
    ("content", "code"), [(None, "bad_request"), ("{}", "bad_request"), ('{"version": 1}', "bad_request")]
)
def test_it_says_at_once_what_is_wrong_with_its_folder(tmp_path, content, code):
    if content is not None:
        (tmp_path / "run.json").write_text(content)

    process = start(tmp_path)
    output, log = process.communicate("", timeout=60)

    assert process.returncode == ExitCode.BAD_REQUEST, log
    assert events_of(output)[-1]["code"] == code
    assert "torch" not in log


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (RequestFailed(FailureCode.DISK_FULL, "The disk is full."), "disk_full", ExitCode.STORAGE),
        (RequestFailed(FailureCode.NOT_A_NUMBER, "NaN."), "not_a_number", ExitCode.NOT_A_NUMBER),
        (RequestFailed(FailureCode.MODEL_MISSING, "Gone."), "model_missing", ExitCode.MODEL_MISSING),
        (RequestFailed(FailureCode.DATASET_INVALID, "Bad."), "dataset_invalid", ExitCode.BAD_DATA),
        (RuntimeError("CUDA out of memory. Tried"), "out_of_memory", ExitCode.OUT_OF_MEMORY),
        (KeyError("/secret/place"), "trainer_error", ExitCode.BUG),
    ],
)
def test_every_failure_has_a_code_and_a_status(error, code, status):
    recorder = Recorder()

    assert program.report(error, Channel(recorder, None)) == status
    (event,) = recorder.events
    assert (event["event"], event["code"]) == ("error", code)
    assert "/secret" not in event["detail"]


def test_requests_of_the_guard_are_heard():
    stop = Stop()
    lines = b'{"type": "sample"}\nnonsense\n{"type": "other"}\n{"type": "stop", "save": false}\n'

    program._listen(Channel(io.BytesIO(), io.BytesIO(lines)), stop)

    assert stop.is_requested
    assert not stop.save
    assert stop.take_samples_request()
    assert not stop.take_samples_request()


SLOW_IMPORT = """
import sys, time
from imagehub.jobs import protocol
from training.trainer import __main__ as trainer

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            time.sleep(1)

protocol.HEARTBEAT_SECONDS = 0.05
sys.meta_path.insert(0, Slow())
sys.exit(trainer.main())
"""


def test_it_gives_signs_of_life_before_torch_is_there(tmp_path, tiny_folders):
    rig = make_rig(tmp_path / "run", tiny_folders["sd15"], small_recipe(steps=1))
    rig.write()

    done = subprocess.run(
        [sys.executable, "-c", SLOW_IMPORT, rig.root, "--export", "1"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
    )

    told = [event["event"] for event in events_of(done.stdout)]
    assert told.count("heartbeat") >= 5, done.stderr
    assert "error" in told  # there is no such checkpoint
    assert done.returncode == ExitCode.BAD_REQUEST


IMPATIENT = """
import sys
from training.trainer import __main__ as trainer, alone

alone.WAIT_SECONDS = 0.5
sys.exit(trainer.main())
"""


def test_two_do_not_train_in_one_folder(tmp_path, tiny_folders):
    rig = make_rig(tmp_path / "run", tiny_folders["sd15"], small_recipe(steps=2, validation_every=0))
    rig.write()

    def train():
        return subprocess.run(
            [sys.executable, "-c", IMPATIENT, rig.root],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            timeout=60,
        )

    with alone_in(rig.folder, should_stop=lambda: False):
        too_late = train()

    assert too_late.returncode == ExitCode.BUSY, too_late.stderr
    (error,) = [event for event in events_of(too_late.stdout) if event["event"] == "error"]
    assert error["code"] == "folder_busy"
    assert not rig.folder.checkpoints.exists()
    assert train().returncode == ExitCode.FINISHED


def test_whoever_has_lost_the_run_saves_nothing(tmp_path, tiny_folders):
    rig = make_rig(
        tmp_path / "run", tiny_folders["sd15"], small_recipe(checkpoint_every=2), extra={"token": "first"}
    )

    def give_away(event):
        if event["event"] == "checkpoint":
            replace(Assignment.read(rig.folder), token="second").write(rig.folder)

    with pytest.raises(RequestFailed) as failure:
        rig.train(give_away)

    assert failure.value.code == FailureCode.FOLDER_BUSY
    assert steps_in(rig.folder.checkpoints) == [2]


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ({"event": "finished"}, ExitCode.FINISHED),
        ({"event": "stopped", "saved": True}, ExitCode.STOPPED),
        ({"event": "error", "code": "out_of_memory"}, ExitCode.OUT_OF_MEMORY),
        ({"event": "error", "code": "unheard_of"}, ExitCode.BUG),
        ({"event": "error", "code": ["odd"]}, ExitCode.BUG),
        ({"event": "heartbeat"}, None),
    ],
)
def test_its_last_word_tells_its_status(event, status):
    assert status_after(event) == status


def test_its_peak_of_memory_is_its_own_and_not_that_of_who_started_it():
    program = "from training.trainer.progress import peak_memory_bytes; print(peak_memory_bytes())"
    large = bytearray(2 * 10**9)  # what the parent has at hand as it starts the child
    large[::4096] = b"x" * len(large[::4096])

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: None,  # by fork, as the guard starts its children
        timeout=60,
    )

    assert int(done.stdout) < 10**9, done.stderr
