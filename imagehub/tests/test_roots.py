from imagehub import roots, storage


def test_what_nobody_names_lies_under_var(settings, tmp_path):
    settings.VAR_DIR = tmp_path / "var"

    assert roots.media_root() == tmp_path / "var" / "media"
    assert roots.models_root() == tmp_path / "var" / "models"
    assert roots.training_root() == tmp_path / "var" / "training"
    assert roots.scraping_root() == tmp_path / "var" / "scraping"
    assert roots.logs_root() == tmp_path / "var" / "logs"


def test_the_file_goes_before_var_and_the_environment_before_the_file(settings, set_config, tmp_path):
    set_config(f"paths: {{media: {tmp_path / 'file'}}}\nstorage: {{minimum_free_bytes: 0}}")
    assert roots.media_root() == tmp_path / "file"

    settings.NAMED_ROOTS = {"media": str(tmp_path / "environment")}
    assert roots.media_root() == tmp_path / "environment"


def test_a_change_of_the_file_holds_for_the_next_file_stored(set_config, tmp_path):
    storage.store_bytes(b"one", suffix="png")
    set_config(f"paths: {{media: {tmp_path / 'disk'}}}\nstorage: {{minimum_free_bytes: 0}}")

    stored = storage.store_bytes(b"two", suffix="png")

    assert (tmp_path / "disk" / stored.name).is_file()
