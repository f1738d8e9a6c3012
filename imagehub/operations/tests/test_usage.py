import os
from datetime import UTC, datetime, timedelta

import pytest

from imagehub.operations import usage
from imagehub.operations.file_kinds import FileKind, Usage
from imagehub.operations.forecast import MOST_POINTS, days_until, growth_per_day
from imagehub.operations.usage import Pace, TooManyFiles, measure, usage_of_roots

KINDS = [
    FileKind("training", "checkpoints", ("runs/*/checkpoints",)),
    FileKind("training", "runs", ("runs",)),
    FileKind("training", "database", ("*.sqlite3*",)),
]


def put(path, size=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


class TestMeasure:
    def test_tells_kinds_apart_and_what_lies_deeper_first(self, root):
        put(root / "runs/1/checkpoints/step-10/adapter.safetensors", 1000)
        put(root / "runs/1/checkpoints/index.json", 5)
        put(root / "runs/1/run.log", 7)
        put(root / "checkpoints/stray", 3)
        put(root / "imagehub.sqlite3-wal", 2)

        assert measure(root, KINDS) == {
            "checkpoints": Usage(1005, 2),
            "runs": Usage(7, 1),
            "database": Usage(2, 1),
            "other": Usage(3, 1),
        }

    def test_follows_no_link_and_counts_a_file_with_two_names_once(self, root):
        original = put(root / "store/picture", 100)
        (root / "runs/1").mkdir(parents=True)
        os.link(original, root / "runs/1/picture")
        (root / "runs/out").symlink_to("/usr")
        (root / "runs/1/link").symlink_to(original)

        assert measure(root, KINDS) == {
            "checkpoints": Usage(),
            "runs": Usage(50, 1),
            "database": Usage(),
            "other": Usage(50, 1),
        }

    def test_passes_over_what_is_not_there_or_vanishes(self, root, monkeypatch):
        put(root / "runs/1/a", 1)
        put(root / "runs/2/b", 1)

        def look_into(folder, look_into=usage._look_into):
            if folder.endswith("/runs/1"):
                (root / "runs/1/a").unlink()
                (root / "runs/1").rmdir()
            return look_into(folder)

        monkeypatch.setattr(usage, "_look_into", look_into)

        assert measure(root, KINDS)["runs"] == Usage(1, 1)
        assert measure(root / "nothing", KINDS)["runs"] == Usage()

    def test_gives_up_when_time_is_up_and_rests_in_between(self, root, monkeypatch):
        for number in range(6):
            put(root / str(number))
        rests = []
        monkeypatch.setattr(usage, "TURN", 2)
        monkeypatch.setattr("time.sleep", rests.append)

        measure(root, KINDS)

        assert len(rests) == 3
        with pytest.raises(TooManyFiles):
            measure(root, KINDS, pace=Pace(0))


class TestRoots:
    def test_a_root_in_another_counts_for_itself(self, tmp_path):
        put(tmp_path / "media/images/ab/a.png", 100)
        put(tmp_path / "media/staging/job/half", 10)
        put(tmp_path / "training/runs/1/checkpoints/step", 20)
        put(tmp_path / "models/adapters/a.safetensors", 30)
        put(tmp_path / "models/sdxl/unet", 40)
        put(tmp_path / "scraping/jobs/1/pictures/p", 50)
        put(tmp_path / "logs/engine.log", 60)

        found = usage_of_roots()

        assert found["media"]["originals"] == {"bytes": 100, "files": 1}
        assert found["media"]["staging"]["bytes"] == 10
        assert found["training"]["checkpoints"]["bytes"] == 20
        assert found["models"]["adapters"]["bytes"] == 30
        assert found["models"]["base_models"]["bytes"] == 40
        assert found["scraping"]["crawls"]["bytes"] == 50
        assert found["var"]["logs"] == {"bytes": 60, "files": 1}
        assert found["var"]["other"]["files"] == 1  # the configuration of this test
        assert "bucket" not in found

    def test_one_that_takes_too_long_is_left_out(self, monkeypatch, tmp_path, caplog):
        put(tmp_path / "media/images/a")
        put(tmp_path / "media/images/b")
        monkeypatch.setattr(usage, "TURN", 2)
        monkeypatch.setattr(usage, "MOST_SECONDS", 0)

        assert "media" not in usage_of_roots()
        assert str(tmp_path) not in caplog.text

    def test_each_has_time_of_its_own_within_that_of_all(self, monkeypatch):
        now, given = [1000.0], {}

        def measure(path, *, pace, **_):
            given[path.name] = pace._deadline - now[0]
            now[0] += given[path.name]
            raise TooManyFiles

        monkeypatch.setattr("time.monotonic", lambda: now[0])
        monkeypatch.setattr(usage, "measure", lambda path, kinds, **values: measure(path, **values))

        assert usage_of_roots() == {}
        assert list(given.values()) == [1800, 1200, 0, 0, 0]


def days(*values):
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    return [(begin + timedelta(hours=6 * place), value) for place, value in enumerate(values)]


class TestGrowth:
    def test_is_what_each_day_brings(self):
        assert growth_per_day(days(*range(0, 1000, 25))) == pytest.approx(100)

    def test_is_not_moved_by_a_purge_or_a_large_file(self):
        values = [100 + 25 * place for place in range(40)]
        values[10] += 10_000
        values[25] = 0
        values[26] = 0

        assert growth_per_day(days(*values)) == pytest.approx(100)

    @pytest.mark.parametrize("points", [days(), days(1, 2, 3, 4), days(1, 2, 3, 4, 5)[:4], [days(1)[0]] * 9])
    def test_is_not_told_from_too_little(self, points):
        assert growth_per_day(points) is None

    def test_of_many_points_some_are_enough(self):
        assert growth_per_day(days(*range(0, 25 * MOST_POINTS * 7, 25))) == pytest.approx(100)

    @pytest.mark.parametrize(
        ("free", "growth", "left"),
        [
            (1000, 100, 10),
            (1000, 0, None),
            (1000, -5, None),
            (1000, None, None),
            (-5, 10, 0),
            (10**9, 1, None),
        ],
    )
    def test_tells_how_long_the_rest_lasts(self, free, growth, left):
        assert days_until(free, growth) == left
