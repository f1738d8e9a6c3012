"""The real trainer under supervision, killed in the middle: the run goes on by itself, and nobody could tell from its adapter."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.tasks import answer_doorbell
from imagehub.tests.together import beside
from training.services import locate_adapter, runs
from training.tests.factories import TrainingRunFactory

# Once: what it shows of the rows, the tests of supervision show on both databases.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.once]

STEPS = 120
"""So many that the rows, which are written once a second, tell of some before all are done."""

RECIPE = {
    "steps": STEPS, "checkpoint_every": 15, "validation_every": 8, "validation_share": 0.0, "rank": 4, "batch_size": 2,
    "learning_rate": 1e-3, "sample_prompts": (),
}  # fmt: skip


def pids_of_trainer(run):
    """Return the processes that train a run, by their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"training.trainer" in arguments and any(str(run.pk).encode() in one for one in arguments):
            found.append(int(path.parent.name))
    return found


def train(run):
    return beside(lambda: answer_doorbell(Cluster.TRAINING))


def tensors(run):
    return load_file(locate_adapter(run.adapter))


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux's /proc")
def test_a_trainer_that_is_killed_goes_on_from_its_checkpoint_as_if_nothing_had_been(set_config):
    set_config("storage: {minimum_free_bytes: 0}\ntraining: {max_active: 2}\n")
    run = TrainingRunFactory(queued=True, recipe=RECIPE)
    worker = train(run)
    while not run.checkpoints.exists():
        assert worker.is_alive()
        time.sleep(0.02)

    (pid,) = pids_of_trainer(run)
    os.kill(pid, signal.SIGKILL)
    worker.join(timeout=120)

    run.refresh_from_db()
    assert (run.status, run.error_detail) == (JobStatus.COMPLETED, "")
    assert (run.attempt, run.resumes, run.step) == (2, 1, STEPS)
    assert list(run.metrics.filter(kind="train").order_by("step").values_list("step", flat=True)) == list(
        range(1, STEPS + 1)
    )
    assert pids_of_trainer(run) == []

    unharmed = runs.start_run(runs.clone_run(run, owner=run.owner))
    train(unharmed).join(timeout=120)
    unharmed.refresh_from_db()
    assert (unharmed.status, unharmed.attempt) == (JobStatus.COMPLETED, 1)
    assert unharmed.facts["encoded_images"] == 0
    one, other = tensors(run), tensors(unharmed)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
