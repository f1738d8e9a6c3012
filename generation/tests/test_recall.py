"""From a picture to the request that makes it again: the same pixels, made by the real engine."""

import PIL.Image
import pytest
from django.utils import timezone
from PIL.PngImagePlugin import PngInfo
from rest_framework.test import APIClient

from albums.models import Image
from albums.services import purge_images, trash_images, update_image
from albums.tests.factories import ImageFactory, picture
from generation.models import GenerationJob
from generation.tests.factories import GenerationJobFactory, ReadyAdapterFactory
from generation.tests.tiny_adapters import make_changes, write_kohya
from imagehub import storage
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.tasks import answer_doorbell
from imagehub.tests.canaries import CANARY
from training.models import BaseModel
from training.services import import_adapter

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(set_config):
    set_config("rate_limits: {generate: {limit: 0, window_seconds: 60}}\nstorage: {minimum_free_bytes: 0}")
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True))
    return client


def make(client, **body) -> list[Image]:
    """Ask for pictures and make them; return them in their order."""
    body = {"prompt": f"a red heart, {CANARY}", "base_model": "tiny"} | body
    response = client.post("/api/generate", body, format="json")
    assert response.status_code == 201, response.json()
    answer_doorbell(Cluster.GENERATION)
    job = GenerationJob.objects.get(pk=response.json()["id"])
    assert (job.status, job.error_code) == (JobStatus.COMPLETED, "")
    return list(Image.objects.made_by(job.pk).order_by("source_index"))


def recall(client, image, status=200) -> dict:
    response = client.get(f"/api/images/{image.pk}/recall")
    assert response.status_code == status, response.json()
    return response.json()


def pixels(image) -> bytes:
    with PIL.Image.open(storage.path_of(image.storage_name)) as stored:
        return stored.tobytes()


@pytest.mark.usefixtures("tiny_model")
class TestSamePixels:
    def again(self, client, image) -> None:
        body = recall(client, image)
        [copy] = make(client, **body)

        assert copy.pk != image.pk
        assert pixels(copy) == pixels(image)
        assert recall(client, copy) == body

    def test_of_each_picture_of_a_job_in_every_seed_mode(self, staff):
        for mode in ("increment", "random", "fixed"):
            images = make(staff, n=3, seed=2147483647, seed_mode=mode, guidance_scale=3.5)

            self.again(staff, images[2])

    def test_with_everything_said(self, staff):
        [image] = make(
            staff,
            negative_prompt="a blur",
            seed=3,
            steps=3,
            width=72,
            height=64,
            scheduler="euler_a",
            visibility="public",
        )

        assert recall(staff, image)["visibility"] == "public"
        self.again(staff, image)

    def test_of_a_picture_made_from_another(self, staff):
        [source] = make(staff, seed=1)
        [image] = make(staff, seed=2, steps=4, init_image=str(source.pk), strength=0.6)

        assert pixels(image) != pixels(source)
        self.again(staff, image)

    def test_of_a_picture_made_from_another_though_its_job_has_gone(self, staff):
        [source] = make(staff, seed=1)
        [image] = make(staff, seed=2, steps=4, init_image=str(source.pk), strength=0.6)
        GenerationJob.objects.all().delete()

        body = recall(staff, image)
        assert (body["init_image"], body["strength"]) == (str(source.pk), 0.6)
        self.again(staff, image)

        trash_images([source.pk])
        assert "started from" in recall(staff, image, status=422)["detail"]

    def test_of_a_picture_made_from_none_though_its_job_has_gone(self, staff):
        [image] = make(staff, seed=2)
        GenerationJob.objects.all().delete()

        assert "init_image" not in recall(staff, image)
        self.again(staff, image)

    def test_with_a_stack_of_adapters(self, staff, tiny_sd15, tmp_path):
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd15)
        loras = []
        for seed in (1, 2):
            changes = make_changes(pipeline, parts=["unet"], seed=seed)
            adapter, _ = import_adapter(
                write_kohya(tmp_path / f"{seed}.safetensors", changes), name=f"ink {seed}"
            )
            loras.append({"id": str(adapter.pk), "weight": 0.5 * seed})
        [plain] = make(staff, seed=5)
        [image] = make(staff, seed=5, loras=loras)

        assert pixels(image) != pixels(plain)
        assert recall(staff, image)["loras"] == loras
        self.again(staff, image)

    def test_whatever_has_been_said_about_it_since(self, staff):
        [image] = make(staff, seed=5)
        update_image(image, prompt="something else", name="renamed")

        self.again(staff, image)

    def test_with_the_schedule_of_the_model_whatever_is_the_default_since(self, staff):
        [image] = make(staff, seed=5)
        BaseModel.objects.filter(name="tiny").update(default_scheduler="euler")

        self.again(staff, image)

    def test_of_a_card_of_a_set(self, staff):
        from generation.tests.decks import THEME, make_deck

        deck = make_deck()
        body = {"theme": THEME, "base_model": "tiny", "seed": 4, "rows": [2]}
        run = staff.post(f"/api/albums/{deck.pk}/generate", body, format="json").json()
        answer_doorbell(Cluster.GENERATION)
        [item] = staff.get(f"/api/set-runs/{run['id']}").json()["items"]

        self.again(staff, Image.objects.get(pk=item["image"]["id"]))


class TestWhatCannotBe:
    def image(self, content=None, **fields) -> Image:
        job = GenerationJobFactory(status=JobStatus.COMPLETED, finished_at=timezone.now(), **fields)
        return ImageFactory(
            source_kind=Image.SourceKind.GENERATION,
            source_id=job.pk,
            seed=1,
            loras=job.loras,
            **({"content": content} if content else {}),
        )

    def test_an_upload_was_not_generated(self, staff):
        assert recall(staff, ImageFactory(), status=422)["code"] == "not_recallable"

    def test_what_is_not_known_is_named(self, staff):
        image = ImageFactory(source_kind=Image.SourceKind.IMPORT, seed=7, base_model="starter")

        assert "steps, guidance_scale" in recall(staff, image, status=422)["detail"]

    def test_a_picture_whose_job_has_gone_says_itself_how_it_was_made(self, staff):
        text = PngInfo()
        text.add_text("imagehub", '{"schema": 1, "strength": null}')
        image = self.image(content=picture(pnginfo=text))
        GenerationJob.objects.all().delete()
        values = {"steps": 2, "guidance_scale": 4.0, "base_model": "starter", "width": 64, "height": 64}
        Image.objects.filter(pk=image.pk).update(**values)

        body = recall(staff, image)

        assert {name: body[name] for name in values} == values
        assert (body["prompt"], body["seed"], body["n"]) == (image.prompt, 1, 1)

    @pytest.mark.parametrize("text", [None, "{", "[]", '{"schema": 99}'])
    def test_a_picture_of_which_neither_job_nor_file_tells_is_not_made_again(self, staff, text):
        chunks = PngInfo()
        if text:
            chunks.add_text("imagehub", text)
        image = self.image(content=picture(pnginfo=chunks))
        GenerationJob.objects.all().delete()
        Image.objects.update(steps=2, guidance_scale=4.0, base_model="starter")

        told = recall(staff, image, status=422)

        assert told["code"] == "not_recallable"
        assert "does not say whether it started from another image" in told["detail"]

    def test_adapters_that_are_missing_are_named(self, staff):
        gone, off = ReadyAdapterFactory(name="gone"), ReadyAdapterFactory(name="off", is_enabled=False)
        image = self.image(
            loras=[{"id": str(lora.pk), "name": lora.name, "weight": 1.0} for lora in (gone, off)]
        )
        gone.delete()

        detail = recall(staff, image, status=422)["detail"]

        assert "“gone”" in detail
        assert "“off”" in detail

    def test_a_base_model_that_is_disabled_is_named(self, staff):
        image = self.image()
        model = GenerationJob.objects.get().base_model
        model.is_enabled = False
        model.save()

        assert "“starter”" in recall(staff, image, status=422)["detail"]

    def test_the_image_it_started_from_may_have_gone(self, staff):
        source = ImageFactory()
        image = self.image(init_image=source, strength=0.5)
        trash_images([source.pk])
        assert "started from" in recall(staff, image, status=422)["detail"]
        purge_images([source.pk])

        assert "started from" in recall(staff, image, status=422)["detail"]
