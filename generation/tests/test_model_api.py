"""The contract of ``/api/models``."""

import pytest
from rest_framework.test import APIClient

from generation.tests.factories import GenerationJobFactory, starter_model
from imagehub.accounts.models import AuditEntry
from imagehub.roots import models_root
from training.models import BaseModel
from training.tests.test_model_recognition import write_folder

pytestmark = pytest.mark.django_db

STAFF_ONLY = {"kind", "source", "path", "pipeline", "size_bytes", "problem", "probed_at"}


@pytest.fixture(autouse=True)
def _starter():
    starter_model()


@pytest.fixture
def public():
    return APIClient()


def hub(name="xl", **values):
    return BaseModel.objects.create(name=name, kind=BaseModel.Kind.HUB, source="org/name", **values)


def test_the_public_is_told_names_and_sizes_of_what_is_enabled(public, staff):
    hub()
    hidden = hub("hidden", is_enabled=False)

    told = public.get("/api/models").json()["results"]

    assert [model["name"] for model in told] == ["starter", "xl"]
    assert not STAFF_ONLY & told[0].keys()
    assert public.get(f"/api/models/{hidden.pk}").status_code == 404
    assert len(staff.get("/api/models").json()["results"]) == 3


def test_staff_are_told_where_it_lies_and_what_a_look_found(staff):
    write_folder(models_root() / "sd15")

    created = staff.post("/api/models", {"name": "sd15", "kind": "folder", "source": "sd15"}, format="json")

    model = created.json()
    assert (created.status_code, created["Location"]) == (201, f"/api/models/{model['id']}")
    assert staff.get(created["Location"]).json() == model
    assert model["path"] == str(models_root() / "sd15")
    assert (model["architecture"], model["default_width"], model["problem"]) == ("sd1", 512, "")


def test_a_size_that_is_said_is_kept(staff):
    write_folder(models_root() / "sd15")
    body = {"name": "a", "kind": "folder", "source": "sd15", "default_width": 768, "default_height": 640}

    model = staff.post("/api/models", body, format="json").json()

    assert (model["default_width"], model["default_height"]) == (768, 640)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": "two words"}, "/name"),
        ({"name": 5}, "/name"),
        ({"kind": "bundled"}, "/kind"),
        ({"source": "/etc"}, "/source"),
        ({"source": ""}, "/source"),
        ({"source": "a\0b"}, "/source"),
        ({"default_width": 63}, "/default_width"),
        ({"default_width": True}, "/default_width"),
        ({"default_steps": 0}, "/default_steps"),
        ({"default_guidance_scale": 31}, "/default_guidance_scale"),
        ({"default_scheduler": "nothing"}, "/default_scheduler"),
        ({"architecture": "sd9"}, "/architecture"),
        ({"pipeline": "X"}, "/pipeline"),
    ],
)
def test_what_is_wrong_is_named(staff, change, pointer):
    body = {"name": "a", "kind": "folder", "source": "sd15"} | change

    response = staff.post("/api/models", body, format="json")

    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert not BaseModel.objects.filter(name="a").exists()


def test_a_name_that_is_taken_is_a_conflict(staff):
    hub("a")

    response = staff.post("/api/models", {"name": "a", "kind": "hub", "source": "org/name"}, format="json")

    assert (response.status_code, response.json()["code"]) == (409, "name_taken")


def test_a_change_changes_what_it_names(staff):
    model = hub(default_steps=30)

    changed = staff.patch(
        f"/api/models/{model.pk}", {"architecture": "sdxl", "is_enabled": False}, format="json"
    ).json()

    assert (changed["architecture"], changed["is_enabled"], changed["default_steps"]) == ("sdxl", False, 30)
    assert AuditEntry.objects.filter(action="basemodel.change", target_id=str(model.pk)).exists()


def test_a_model_that_jobs_name_stays(staff):
    used = GenerationJobFactory().base_model
    unused = hub()

    refused = staff.delete(f"/api/models/{used.pk}")

    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    assert staff.delete(f"/api/models/{unused.pk}").status_code == 204
    assert AuditEntry.objects.filter(action="basemodel.delete", target_id=str(unused.pk)).exists()


def test_it_is_looked_at_again_when_asked(staff):
    model = BaseModel.objects.create(name="a", kind="folder", source="sd15")
    write_folder(models_root() / "sd15")

    looked_at = staff.post(f"/api/models/{model.pk}/probe").json()

    assert (looked_at["architecture"], looked_at["problem"]) == ("sd1", "")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("architecture=sdxl", ["xl"]),
        ("q=star", ["starter"]),
        ("is_enabled=false", ["old"]),
        ("limit=1", ["old"]),
    ],
)
def test_lists_are_filtered(staff, query, names):
    hub("xl", architecture="sdxl")
    hub("old", is_enabled=False)

    assert [model["name"] for model in staff.get(f"/api/models?{query}").json()["results"]] == names


@pytest.mark.parametrize("query", ["architecture=sd9", "colour=red", "is_enabled=x", f"q={'x' * 201}"])
def test_filters_that_mean_nothing_are_refused(staff, query):
    assert staff.get(f"/api/models?{query}").status_code == 400
