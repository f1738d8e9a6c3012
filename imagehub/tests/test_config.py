import logging
import os
from pathlib import Path

import pytest

from imagehub import config
from imagehub.config_file import parse
from imagehub.config_schema import Config
from imagehub.jobs.clusters import GRACE_SECONDS, LIMITS, Cluster

MAX_WALL = LIMITS[Cluster.GENERATION].max_wall_seconds


def write(path, text, *, after=1):
    """Write a file so that it is newer than before, however coarse the clock of the disk is."""
    path.write_text(text)
    moment = path.stat().st_mtime_ns + after * 10**9
    os.utime(path, ns=(moment, moment))


class TestCache:
    def test_a_read_costs_one_stat_and_no_parse(self, monkeypatch):
        config.get_config()
        real, calls = Path.stat, []
        monkeypatch.setattr(Path, "stat", lambda path, **options: calls.append(path) or real(path, **options))
        monkeypatch.setattr(config, "read", lambda path: pytest.fail("it read an unchanged file"))

        first, second = config.get_config(), config.get_config()

        assert first is second
        assert len(calls) == 2

    def test_a_change_holds_at_once(self, settings):
        write(settings.CONFIG_FILE, "engine: {threads: 2}")
        assert config.get_config().engine.threads == 2

        write(settings.CONFIG_FILE, "engine: {threads: 3}", after=2)

        assert config.get_config().engine.threads == 3

    def test_another_file_put_in_its_place_is_noticed(self, settings, tmp_path):
        write(settings.CONFIG_FILE, "engine: {threads: 2}")
        config.get_config()
        stat = settings.CONFIG_FILE.stat()
        other = tmp_path / "new.yaml"
        other.write_text("engine: {threads: 4}")
        os.utime(other, ns=(stat.st_mtime_ns, stat.st_mtime_ns))

        other.replace(settings.CONFIG_FILE)

        assert config.get_config().engine.threads == 4

    @pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
    def test_an_empty_file_means_the_defaults(self, settings, text):
        write(settings.CONFIG_FILE, text)

        assert config.get_config() == Config()
        assert config.problem() == ""

    def test_a_file_that_never_was_means_the_defaults(self, settings, tmp_path):
        settings.CONFIG_FILE = tmp_path / "never.yaml"

        assert config.get_config() == Config()
        assert config.problem() == ""


class TestBrokenFile:
    @pytest.fixture(autouse=True)
    def _good_file(self, settings):
        write(settings.CONFIG_FILE, "engine: {threads: 7}")
        config.get_config()

    @pytest.mark.parametrize(
        "text", ["engine: {threads: nine}", "engine: [", "- a list", "a word", "engine: {threads: 9}\nx: 1"]
    )
    def test_keeps_the_last_good_configuration(self, settings, text):
        write(settings.CONFIG_FILE, text, after=2)

        assert config.get_config().engine.threads == 7
        assert config.problem() != ""

    def test_keeps_it_for_a_file_that_is_no_text(self, settings):
        settings.CONFIG_FILE.write_bytes(b"\xff\xfe\x00")

        assert config.get_config().engine.threads == 7
        assert config.problem() != ""

    def test_is_said_in_the_log_once(self, settings, caplog):
        write(settings.CONFIG_FILE, "engine: {threads: nine}", after=2)

        with caplog.at_level(logging.ERROR, "imagehub.config"):
            config.get_config()
            config.get_config()

        assert len(caplog.records) == 1
        assert "engine.threads" in caplog.text

    def test_is_forgotten_when_it_is_mended(self, settings):
        write(settings.CONFIG_FILE, "engine: {threads: nine}", after=2)
        assert config.problem() != ""

        write(settings.CONFIG_FILE, "engine: {threads: 9}", after=3)

        assert config.problem() == ""
        assert config.get_config().engine.threads == 9


class TestParse:
    @pytest.mark.parametrize(
        ("text", "field"),
        [
            ("engine: {threads: nine}", "engine.threads"),
            ("engine: {threads: '1'}", "engine.threads"),
            ("engine: {threads: true}", "engine.threads"),
            ("engine: {threads: 1.0}", "engine.threads"),
            ("engine: {threads: 0}", "engine.threads"),
            ("engine: {device: tpu}", "engine.device"),
            ("engine: {allow_downloads: 1}", "engine.allow_downloads"),
            ("generation: {steps: {minimum: 1}}", "generation.steps.maximum"),
            ("generation: {guidance_scale_maximum: .nan}", "generation.guidance_scale_maximum"),
            ("generation: {guidance_scale_maximum: .inf}", "generation.guidance_scale_maximum"),
            ("generation: {default_visibility: secret}", "generation.default_visibility"),
            ("storage: {minimum_free_bytes: -1}", "storage.minimum_free_bytes"),
            ("storage: {thumbnail_sizes: [big]}", "storage.thumbnail_sizes.0"),
            ("engine: null", "engine"),
            ("- a list", "the file"),
        ],
    )
    def test_names_the_field_of_an_error(self, text, field):
        with pytest.raises(ValueError, match=rf"(^|; ){field}: "):
            parse(text)

    def test_names_every_error_at_once(self):
        with pytest.raises(ValueError, match=r"engine\.threads: .*; storage\.minimum_free_bytes: "):
            parse("engine: {threads: nine}\nstorage: {minimum_free_bytes: -1}")

    @pytest.mark.parametrize(
        ("text", "field"), [("engin: {}", "engin"), ("engine: {thread: 1}", "engine.thread")]
    )
    def test_refuses_unknown_names(self, text, field):
        with pytest.raises(ValueError, match=rf"^{field}: Extra inputs are not permitted$"):
            parse(text)

    def test_refuses_what_is_no_yaml(self):
        with pytest.raises(ValueError, match="not valid YAML"):
            parse("engine: [")

    def test_builds_no_objects(self):
        with pytest.raises(ValueError, match="not valid YAML"):
            parse("!!python/object/apply:os.system ['true']")

    @pytest.mark.parametrize(
        ("name", "maximum"),
        [("wall_seconds", MAX_WALL), ("idle_seconds", MAX_WALL), ("grace_seconds", GRACE_SECONDS)],
    )
    def test_holds_times_to_what_the_cluster_allows(self, name, maximum):
        text = f"generation: {{images_per_job: 1}}\nengine: {{{name}: "
        assert getattr(parse(f"{text}{maximum}}}").engine, name) == maximum

        with pytest.raises(ValueError, match=rf"engine\.{name}"):
            parse(f"{text}{maximum + 1}}}")

    def test_takes_the_file_that_comes_with_the_project(self, settings):
        parse((settings.BASE_DIR / "config.yaml").read_text())

    def test_is_safe_from_later_changes(self):
        with pytest.raises(ValueError, match="frozen"):
            parse("").engine.threads = 5


def test_a_range_that_nothing_fits_is_refused():
    with pytest.raises(ValueError, match="minimum lies above"):
        parse("generation: {steps: {minimum: 5, maximum: 4}}")


def test_a_job_may_not_outlast_its_cluster():
    with pytest.raises(ValueError, match="images_per_job times"):
        parse("generation: {images_per_job: 64}")


@pytest.mark.parametrize("sizes", ["[]", "[0]", "[-5]", "[100000]"])
def test_thumbnails_have_sensible_sizes(sizes):
    with pytest.raises(ValueError, match="thumbnail_sizes"):
        parse(f"storage: {{thumbnail_sizes: {sizes}}}")


def test_a_file_that_vanishes_keeps_the_last_good_configuration(settings):
    write(settings.CONFIG_FILE, "engine: {threads: 3}")
    config.get_config()

    settings.CONFIG_FILE.unlink()

    assert config.get_config().engine.threads == 3
    assert "no file" in config.problem()


def test_a_named_file_that_is_not_there_is_a_problem(settings, tmp_path):
    settings.CONFIG_FILE = tmp_path / "typo.yaml"
    assert config.problem() == ""

    settings.CONFIG_FILE_IS_NAMED = True
    settings.CONFIG_FILE = tmp_path / "other-typo.yaml"
    assert "no file" in config.problem()
