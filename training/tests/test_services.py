"""Where base models are found, and that nothing outside the models root is."""

import pytest

from imagehub.roots import models_root
from training.models import BaseModel
from training.services import ModelMissing, locate_base_model
from training.starter import MODEL_DIR


def test_the_bundled_model_lies_in_the_package():
    located = locate_base_model(BaseModel(name="starter", kind=BaseModel.Kind.BUNDLED, source="starter"))

    assert located == {"kind": "folder", "source": str(MODEL_DIR), "allow_download": False}


def test_a_file_and_a_folder_are_told_apart(settings):
    (models_root() / "folder").mkdir(parents=True)
    (models_root() / "file.safetensors").touch()

    folder = locate_base_model(BaseModel(name="a", kind=BaseModel.Kind.FOLDER, source="folder"))
    file = locate_base_model(BaseModel(name="b", kind=BaseModel.Kind.FILE, source="file.safetensors"))

    assert (folder["kind"], file["kind"]) == ("folder", "file")


@pytest.mark.parametrize("source", ["nowhere", "../outside", "/etc", "link", ".."])
def test_what_is_missing_or_outside_is_refused_without_a_path(settings, tmp_path, source):
    models_root().mkdir()
    (tmp_path / "outside").mkdir()
    (models_root() / "link").symlink_to(tmp_path / "outside")

    with pytest.raises(ModelMissing) as failure:
        locate_base_model(BaseModel(name="m", kind=BaseModel.Kind.FOLDER, source=source))

    assert str(tmp_path) not in str(failure.value)


def test_a_hub_id_is_fetched_only_where_the_operator_allows_it(set_config):
    model = BaseModel(name="hub", kind=BaseModel.Kind.HUB, source="org/name")
    assert locate_base_model(model) == {"kind": "hub", "source": "org/name", "allow_download": False}

    set_config("engine: {allow_downloads: true}\nstorage: {minimum_free_bytes: 0}")

    assert locate_base_model(model)["allow_download"] is True
