"""The whole way, for real: pictures go in, are looked at, learned, and come out of the generator by their word.

Through the API, the queue, the trainer and the engine, on the starter model. A training is stopped in the middle of it and
resumed.
"""

import io
import time

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image as Picture
from rest_framework.test import APIClient

from generation.tests.zorps import likeness, zorp_file
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.tasks import answer_doorbell
from imagehub.tests.together import beside
from training.models import Adapter, TrainingRun
from training.tests.factories import starter_model

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

PICTURES = 24
STEPS = 120
CONFIG = {
    "steps": STEPS,
    "resolution": 64,
    "rank": 8,
    "alpha": 4.0,
    "target_modules": "transformer",
    "batch_size": 4,
    "learning_rate": 4e-3,
    "validation_every": 60,
    "checkpoint_every": 50,
    "sample_every": 0,
}
SEEDS = (0, 1, 2)
KNOWN = "a red heart on a white background"


@pytest.fixture
def staff(set_config):
    set_config("storage: {minimum_free_bytes: 0}\nrate_limits: {generate: {limit: 0, window_seconds: 60}}\n")
    starter_model()
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True))
    return client


def answer(response, status=200):
    assert response.status_code == status, response.content
    return response.json()


def upload(client):
    """Upload the drawings into an album, and say what they are; return the id of the album."""
    album = answer(client.post("/api/albums", {"name": "Zorps"}, format="json"), 201)["id"]
    files = [SimpleUploadedFile(f"{seed}.png", zorp_file(seed), "image/png") for seed in range(PICTURES)]
    sent = answer(
        client.post("/api/images/upload", {"files": files, "album": album}, format="multipart"), 201
    )
    for result in sent["results"]:
        caption = {"kind": "caption", "text": "zorp"}
        answer(client.post(f"/api/images/{result['image']['id']}/labels", caption, format="json"), 201)
    return album


def train_until(run_id, step):
    """Have a worker train, in a thread of its own, until a run has taken so many steps; return the thread."""

    worker = beside(lambda: answer_doorbell(Cluster.TRAINING))
    while TrainingRun.objects.get(pk=run_id).step < step:
        assert worker.is_alive(), TrainingRun.objects.get(pk=run_id).error_detail
        time.sleep(0.1)
    return worker


def draw(client, prompt, seed, loras=()):
    job = answer(
        client.post(
            "/api/generate",
            {"prompt": prompt, "seed": seed, "steps": 15, "guidance_scale": 4.0, "loras": list(loras)},
            format="json",
        ),
        201,
    )["id"]
    answer_doorbell(Cluster.GENERATION)
    done = answer(client.get(f"/api/jobs/{job}"))
    assert done["status"] == "completed", done["error"]
    response = client.get(done["images"][0]["file_url"])
    return Picture.open(io.BytesIO(b"".join(response.streaming_content))), done["images"][0]["id"]


def test_an_album_is_learned_and_its_word_draws_it(staff):
    album = upload(staff)
    request = {"album_ids": [album], "trigger_word": "zorp", "config": CONFIG}

    report = answer(staff.post("/api/training/preflight", request, format="json"))
    assert (report["ready"], report["blockers"]) == (True, [])
    assert (report["counts"]["usable"], report["counts"]["captioned"]) == (PICTURES, PICTURES)
    assert report["buckets"] == [{"width": 64, "height": 64, "images": report["counts"]["train"]}]

    run = answer(staff.post("/api/training", request | {"name": "Zorps"}, format="json"), 201)
    assert run["status"] == "pending"
    path = f"/api/training/{run['id']}"
    assert answer(staff.post(f"{path}/start"))["status"] == "queued"

    worker = train_until(run["id"], 20)
    answer(staff.post(f"{path}/cancel"), 202)
    worker.join(timeout=60)
    stopped = answer(staff.get(path))
    assert stopped["status"] == "cancelled"
    assert 20 <= stopped["step"] < STEPS
    checkpoints = answer(staff.get(f"{path}/checkpoints"))["results"]
    assert stopped["step"] in [checkpoint["step"] for checkpoint in checkpoints]
    assert not Adapter.objects.exists()

    assert answer(staff.post(f"{path}/resume"))["status"] == "queued"
    answer_doorbell(Cluster.TRAINING)
    trained = answer(staff.get(path))
    assert (trained["status"], trained["error"]) == ("completed", None)
    assert (trained["step"], trained["resumes"]) == (STEPS, 1)
    curves = answer(staff.get(f"{path}/metrics"))
    assert [point["step"] for point in curves["train"]] == list(range(1, STEPS + 1))
    assert trained["validation_loss"] < 0.5 * trained["base_loss"]
    assert trained["facts"]["peak_memory_bytes"] == pytest.approx(
        trained["estimate"]["memory_bytes"], rel=0.25
    )

    (adapter,) = answer(staff.get("/api/training/loras"))["results"]
    assert adapter["trigger_word"] == "zorp"
    with_it = [{"id": adapter["id"], "weight": 1.0}]
    of_base = [likeness(draw(staff, "zorp", seed)[0]) for seed in SEEDS]
    drawn = [draw(staff, "zorp", seed, with_it) for seed in SEEDS]
    of_adapter = [likeness(picture) for picture, _ in drawn]
    assert max(of_base) < 0.1
    assert min(of_adapter) > 0.35
    # It came with the word, and not with whatever is asked for.
    assert likeness(draw(staff, KNOWN, 7, with_it)[0]) < 0.1

    lineage = answer(staff.get(f"/api/images/{drawn[0][1]}/lineage"))
    kinds = [node["kind"] for node in lineage["nodes"]]
    assert {"adapter", "training_run"} <= set(kinds)
    assert kinds.count("image") == 1 + PICTURES
