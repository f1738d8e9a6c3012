"""Base models and adapters in the admin."""

import pytest
from django.contrib.messages import get_messages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from albums.models import ImageLora
from albums.tests.factories import ImageFactory
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.roots import models_root
from training.models import Adapter, BaseModel
from training.services import adapters as adapters_module
from training.services import base_models, locate_adapter
from training.tests.factories import AdapterFactory
from training.tests.test_base_models import transactions
from training.tests.test_model_recognition import write_folder
from training.tests.weight_headers import write_header, write_sd1_adapter
from training.weights import recognise_model

pytestmark = pytest.mark.django_db

MODELS, ADAPTERS = "/admin/training/basemodel/", "/admin/training/adapter/"
NEW_MODEL = {
    "name": "sd15", "kind": "folder", "source": "sd15", "architecture": "", "is_enabled": "on",
    "default_width": "512", "default_height": "512", "default_steps": "30", "default_guidance_scale": "7.0",
    "default_scheduler": "",
}  # fmt: skip


@pytest.fixture
def staff():
    client = Client()
    client.force_login(UserFactory(staff=True, username="ann"))
    return client


def said(response):
    return " ".join(str(message) for message in get_messages(response.wsgi_request))


class TestBaseModels:
    def test_a_new_one_is_looked_at(self, staff):
        write_folder(models_root() / "sd15", sample=96)

        response = staff.post(f"{MODELS}add/", NEW_MODEL)

        model = BaseModel.objects.get(name="sd15")
        assert response.status_code == 302
        assert (model.architecture, model.default_width, model.problem) == ("sd1", 768, "")

    def test_one_that_cannot_be_used_is_refused_with_the_reason(self, staff):
        write_folder(models_root() / "sd15", channels=9)

        response = staff.post(f"{MODELS}add/", NEW_MODEL)

        assert "inpainting" in said(response)
        assert not BaseModel.objects.filter(name="sd15").exists()

    def test_its_page_shows_what_a_look_found(self, staff):
        model = BaseModel.objects.create(name="a", kind="folder", source="a", problem="It is broken.")
        ImageFactory(base_model="a")

        page = staff.get(f"{MODELS}{model.pk}/change/").content.decode()

        assert "It is broken." in page
        assert "It is broken." in staff.get(MODELS).content.decode()

    def test_actions_look_again_disable_and_enable(self, staff):
        write_folder(models_root() / "sd15")
        model = BaseModel.objects.create(name="a", kind="folder", source="sd15")

        def act(action):
            response = staff.post(MODELS, {"action": action, "_selected_action": [str(model.pk)]})
            model.refresh_from_db()
            return said(response)

        assert "Sound." in act("probe")
        assert model.architecture == "sd1"
        act("disable")
        assert model.is_enabled is False
        act("enable")
        assert model.is_enabled is True
        assert AuditEntry.objects.filter(action="basemodel.change", target_id=str(model.pk)).count() >= 3

    def test_files_are_looked_at_with_no_transaction_open(self, staff, monkeypatch):
        write_folder(models_root() / "sd15")
        open_then = []

        def look(path):
            open_then.append(transactions())
            return recognise_model(path)

        monkeypatch.setattr(base_models, "recognise_model", look)
        before = transactions()
        staff.post(f"{MODELS}add/", NEW_MODEL)
        model = BaseModel.objects.get(name="sd15")
        staff.post(MODELS, {"action": "probe", "_selected_action": [str(model.pk)]})

        assert open_then == [before] * 2

    def test_forms_without_a_token_are_refused_as_everywhere(self, staff):
        client = Client(enforce_csrf_checks=True)
        client.force_login(UserFactory(staff=True))

        assert client.post(f"{MODELS}add/", NEW_MODEL).status_code == 403
        assert not BaseModel.objects.filter(name="sd15").exists()


class TestAdapters:
    def upload(self, staff, tmp_path, file=None, **fields):
        file = file or SimpleUploadedFile("zwx.safetensors", write_sd1_adapter(tmp_path / "a").read_bytes())
        return staff.post(
            f"{ADAPTERS}add/", {"name": "", "description": "", "trigger_words": "", "file": file, **fields}
        )

    def test_a_file_is_imported(self, staff, tmp_path):
        response = self.upload(staff, tmp_path, trigger_words="zwx, ink")

        adapter = Adapter.objects.get()
        assert response.status_code == 302
        assert (adapter.name, adapter.trigger_words, adapter.owner.username) == ("zwx", ["zwx", "ink"], "ann")
        assert locate_adapter(adapter).is_file()

    def test_a_file_that_is_none_is_refused_with_the_reason(self, staff, tmp_path):
        file = SimpleUploadedFile("a", write_header(tmp_path / "b", {"x.lokr_w1": (1, 1)}).read_bytes())

        assert "LoKr" in said(self.upload(staff, tmp_path, file=file))
        assert not Adapter.objects.exists()

    def test_a_file_is_read_with_no_transaction_open(self, staff, tmp_path, monkeypatch):
        read = adapters_module.sha256_of
        open_then = []

        def look(file):
            open_then.append(transactions())
            return read(file)

        monkeypatch.setattr(adapters_module, "sha256_of", look)
        before = transactions()
        self.upload(staff, tmp_path)

        assert (open_then, Adapter.objects.count()) == ([before], 1)

    def test_the_same_file_again_leads_to_the_one_that_is_there(self, staff, tmp_path):
        self.upload(staff, tmp_path)

        again = self.upload(staff, tmp_path)

        assert said(again).endswith("The same bytes are “zwx” already.")
        assert said(again).count("was added") == 1  # the first time
        assert again["Location"] == f"{ADAPTERS}{Adapter.objects.get().pk}/change/"

    def test_its_page_shows_what_its_file_says_and_what_was_made_with_it(self, staff):
        adapter = AdapterFactory(preview=ImageFactory())
        ImageLora.objects.create(image=ImageFactory(), lora_id=str(adapter.pk))

        page = staff.get(f"{ADAPTERS}{adapter.pk}/change/").content.decode()

        assert adapter.sha256 in page
        assert "not on this machine" in page
        assert f"/api/images/{adapter.preview_id}/thumbnail" in page

    def test_a_change_goes_through_the_service(self, staff):
        adapter, image = AdapterFactory(), ImageFactory()
        fields = {
            "name": "Ink", "description": "", "trigger_words": "zwx", "default_weight": "0.5",
            "preview": str(image.pk), "is_enabled": "on",
        }  # fmt: skip

        staff.post(f"{ADAPTERS}{adapter.pk}/change/", fields)

        adapter.refresh_from_db()
        assert (adapter.name, adapter.trigger_words, adapter.default_weight) == ("Ink", ["zwx"], 0.5)
        assert adapter.preview == image

    def test_one_that_images_were_made_with_is_not_deleted_by_page_or_action(self, staff):
        adapter = AdapterFactory()
        ImageLora.objects.create(image=ImageFactory(), lora_id=str(adapter.pk))

        by_page = staff.post(f"{ADAPTERS}{adapter.pk}/delete/", {"post": "yes"})
        by_action = staff.post(
            ADAPTERS, {"action": "delete_selected", "_selected_action": [str(adapter.pk)], "post": "yes"}
        )

        assert "Images were made with it" in said(by_page)
        assert "Images were made with it" in said(by_action)
        assert Adapter.objects.filter(pk=adapter.pk).exists()
        adapter.refresh_from_db()

    def test_one_that_nobody_uses_is_deleted(self, staff):
        adapter = AdapterFactory()

        staff.post(f"{ADAPTERS}{adapter.pk}/delete/", {"post": "yes"})

        assert not Adapter.objects.exists()
