"""The deck that ships, from its file to 54 pictures in an album, made by the starter model through the API."""

import PIL.Image
import pytest
from rest_framework.test import APIClient

from albums.models import Album, Image
from albums.set_templates.importing import SHIPPED, import_sets
from generation.models import GenerationJob
from generation.tests.factories import starter_model
from imagehub import storage
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.tasks import answer_doorbell

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

CARDS = 54


def test_a_deck_of_54_cards_from_the_shelf_to_the_album():
    starter_model()
    assert list(import_sets(SHIPPED, owner=None))
    deck = Album.objects.get(set_key="playing_cards")
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True))
    rendered = client.get(f"/api/albums/{deck.pk}/render?theme=linocut").json()["results"]

    body = {"theme": "linocut", "steps": 2, "width": 64, "height": 96, "seed": 100, "visibility": "public"}
    response = client.post(f"/api/albums/{deck.pk}/generate", body, format="json")
    assert response.status_code == 201, response.json()
    answer_doorbell(Cluster.GENERATION)
    run = client.get(response["Location"]).json()

    assert (run["status"], run["total"], run["completed"], run["progress"]) == (
        "completed",
        CARDS,
        CARDS,
        100,
    )
    assert [item["name"] for item in run["items"]] == [card["name"] for card in rendered]
    images = list(Image.objects.in_album(run["album"]).order_by("position", "id"))
    assert [image.position for image in images] == list(range(CARDS))
    assert [(image.name, image.prompt) for image in images] == [
        (card["name"], card["prompt"]) for card in rendered
    ]
    assert [image.seed for image in images] == list(range(100, 100 + CARDS))
    assert [str(image.pk) for image in images] == [item["image"]["id"] for item in run["items"]]
    assert len({image.sha256 for image in images}) == CARDS
    for image in images:
        with PIL.Image.open(storage.path_of(image.storage_name)) as picture:
            assert picture.size == (64, 96)
    assert client.get(f"/api/albums/{run['album']}").json()["image_count"] == CARDS
    assert client.get(run["contact_sheet_url"])["X-Sheets"] == "1"
    jobs = GenerationJob.objects.filter(set_run=run["id"])
    assert not jobs.exclude(attempt=1).exists()
