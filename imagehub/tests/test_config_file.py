import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from imagehub import config_file
from imagehub.config_file import ConfigInvalid, ConfigNotWritable, editing, parse, read

TEXT = """\
# Ours: ask the picture team before you change anything.
generation:
  images_per_job: 4   # four fit on the wall
  steps: {minimum: 1, maximum: 50}  # patience

engine:
  device: 'cpu'
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "tuned.yaml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


def change(path, changes):
    with editing(path, changes) as edit:
        edit.write()
    return edit


class TestWriting:
    def test_changes_a_value_and_nothing_else(self, file):
        edit = change(file, {"generation": {"images_per_job": 6}})

        assert file.read_text() == TEXT.replace("images_per_job: 4 ", "images_per_job: 6 ")
        assert edit.changes == ({"generation.images_per_job": 4}, {"generation.images_per_job": 6})

    def test_changes_one_side_of_a_range(self, file):
        change(file, {"generation": {"steps": {"maximum": 60}}})

        assert read(file).generation.steps.model_dump() == {"minimum": 1, "maximum": 60}
        assert "# patience" in file.read_text()

    def test_adds_a_section_whole_though_a_part_was_given(self, file):
        change(file, {"rate_limits": {"generate": {"limit": 20}}})

        assert read(file).rate_limits.generate.model_dump() == {"limit": 20, "window_seconds": 60}
        assert file.read_text().startswith(TEXT)

    def test_null_brings_the_default_back(self, file):
        change(file, {"engine": {"device": None}, "generation": None})

        assert read(file) == parse("")
        assert "ask the picture team" in file.read_text()

    def test_null_brings_back_the_default_of_what_a_section_must_have(self, file):
        change(file, {"generation": {"steps": {"maximum": None}}})

        assert read(file).generation.steps.maximum == 150

    def test_makes_a_file_that_was_not_there(self, tmp_path):
        change(tmp_path / "new.yaml", {"engine": {"threads": 2}})

        assert read(tmp_path / "new.yaml").engine.threads == 2

    def test_keeps_a_file_of_comments(self, file):
        file.write_text("# nothing yet\n")

        change(file, {"engine": {"threads": 2}})

        assert file.read_text() == "# nothing yet\nengine:\n  threads: 2\n"

    def test_keeps_the_mode_and_leaves_nothing_beside_it(self, file):
        change(file, {"engine": {"threads": 2}})

        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        assert {path.name for path in file.parent.glob("*tuned*")} == {"tuned.yaml", ".tuned.yaml.lock"}

    def test_changes_what_a_symbolic_link_leads_to(self, file, tmp_path):
        link = tmp_path / "link.yaml"
        link.symlink_to(file)

        change(link, {"engine": {"threads": 2}})

        assert link.is_symlink()
        assert read(file).engine.threads == 2

    def test_refuses_what_breaks_the_schema_and_names_every_place(self, file):
        changes = {"engine": {"threads": 0, "nope": None}, "<<": {}, "storage": {"thumbnail_sizes": ["big"]}}

        with pytest.raises(ConfigInvalid) as refusal:
            change(file, changes)
        assert [place for place, _ in refusal.value.errors] == [("engine", "nope"), ("<<",)]

        with pytest.raises(ConfigInvalid) as refusal:
            change(file, {"engine": {"threads": 0}, "storage": {"thumbnail_sizes": ["big"]}})
        assert {place[:2] for place, _ in refusal.value.errors} == {
            ("engine", "threads"),
            ("storage", "thumbnail_sizes"),
        }
        assert file.read_text() == TEXT

    @pytest.mark.parametrize("value", ["yes", "on", "010", "1:30", "~", "null", "*x", "# no", "a: b", "\x07"])
    def test_a_word_comes_back_as_the_word_it_was(self, file, value):
        change(file, {"paths": {"media": f"/{value}", "models": "/010"}})

        assert (read(file).paths.media, read(file).paths.models) == (f"/{value}", "/010")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", [], {"a": 1}])
    def test_odd_values_are_refused(self, file, value):
        with pytest.raises(ConfigInvalid):
            change(file, {"generation": {"guidance_scale_maximum": value}})

    def test_does_not_touch_a_broken_file(self, file):
        file.write_text("engine: [")

        with pytest.raises(ConfigNotWritable, match="mended by hand"):
            change(file, {"engine": {"threads": 2}})
        assert file.read_text() == "engine: ["

    def test_says_so_when_the_disk_does_not_let_it(self, file, monkeypatch):
        def refuse(*_, **__):
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(config_file.tempfile, "mkstemp", refuse)

        with pytest.raises(ConfigNotWritable, match="Read-only file system"):
            change(file, {"engine": {"threads": 2}})
        assert file.read_text() == TEXT


def write_many(path, name, count):
    for number in range(1, count + 1):
        change(path, {"rate_limits": {name: {"limit": number}}})


def test_changes_at_once_lose_nothing(file):
    names = ["upload", "training_start", "scrape_start", "labeling"]
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(file, name, 5)) for name in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    limits = read(file).rate_limits
    assert [getattr(limits, name).limit for name in names] == [5] * len(names)
    assert "ask the picture team" in file.read_text()


def test_threads_wait_for_one_another(file):
    writers = [
        threading.Thread(target=write_many, args=(file, name, 3))
        for name in ("upload", "labeling", "sign_in")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    limits = read(file).rate_limits
    assert [limits.upload.limit, limits.labeling.limit, limits.sign_in.limit] == [3, 3, 3]


DIES = """
import os, signal, sys
from pathlib import Path
from imagehub import config_file
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with config_file.editing(Path(sys.argv[1]), {"engine": {"threads": 2}}) as edit:
    edit.write()
"""


def test_a_writer_that_is_killed_leaves_the_old_file_and_no_lock(file):
    died = subprocess.run(
        [sys.executable, "-c", DIES, str(file)],
        check=False,
        cwd=django_settings.BASE_DIR,
        env=os.environ | {"PYTHONPATH": str(django_settings.BASE_DIR)},
    )

    assert died.returncode == -signal.SIGKILL
    assert file.read_text() == TEXT
    change(file, {"engine": {"threads": 3}})
    assert read(file).engine.threads == 3


class TestReading:
    def test_refuses_aliases(self):
        bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"

        with pytest.raises(ValueError, match="aliases are not allowed"):
            parse(bomb)

    def test_refuses_a_name_that_stands_twice(self):
        with pytest.raises(ValueError, match="not valid YAML"):
            parse("engine: {threads: 1}\nengine: {threads: 2}\n")

    def test_refuses_more_than_a_configuration_needs(self, file):
        file.write_text("# " + "x" * config_file.MAX_BYTES)

        with pytest.raises(ValueError, match="more than"):
            read(file)

    def test_refuses_what_is_nested_without_end(self):
        with pytest.raises(ValueError, match="not valid YAML"):
            parse("[" * 100_000)

    @pytest.mark.parametrize("name", ["media", "models", "training", "scraping"])
    def test_paths_are_absolute(self, name):
        assert getattr(parse(f"paths: {{{name}: /srv/x}}").paths, name) == "/srv/x"

        with pytest.raises(ValueError, match=rf"paths\.{name}: .*absolute"):
            parse(f"paths: {{{name}: srv/x}}")
