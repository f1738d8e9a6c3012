"""A picture that ends its decoder costs itself and nothing else (U44); a decoder can do little, and never stays."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from albums.decoding import ImpossiblePicture, pool, vet
from albums.decoding.refusals import DecoderUnavailable
from albums.tests.decoding import samples
from albums.tests.decoding.samples import drawing, saved
from imagehub.config_schema import UploadsConfig

SLOW = {"max_frames": 1000, "max_total_pixels": 1_000_000_000}
"""The limits within which the slow picture is taken."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux's limits and /proc")


@pytest.fixture(scope="module")
def slow():
    """A picture of many seconds."""
    return samples.long_animation(1000, 1000, 1000, depth=8, colour=6)


@pytest.fixture
def decoders():
    return pool.decoders(UploadsConfig())


def state_of(pid: int) -> str:
    """Return R for a process that runs, S for one that sleeps, Z for a dead one, or nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def wait_until(true, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.02)


def end_all(pids, sig):
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, sig)


@linux
class TestAPictureThatEndsItsDecoder:
    @pytest.mark.parametrize("sig", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
    def test_is_refused_and_the_next_one_taken(self, take, slow, staging, decoders, sig):
        take(saved(drawing(), "PNG"))
        kept = set(staging.iterdir())
        before = {pid: cpu_seconds(pid) for pid in decoders.pids}

        def crash():
            wait_until(lambda: any(cpu_seconds(pid) > cpu + 0.2 for pid, cpu in before.items()))
            end_all(before, sig)

        with ThreadPoolExecutor(1) as other:
            crashed = other.submit(crash)
            with pytest.raises(ImpossiblePicture) as error:
                take(slow, **SLOW)
            crashed.result()

        assert error.value.code == "decoder_crashed"
        assert set(staging.iterdir()) == kept
        assert take(saved(drawing(), "PNG")).width == 60
        assert decoders.pids - before.keys()

    def test_by_taking_too_much_memory_is_refused(self, take):
        limits = {"decoder_memory_bytes": 256 << 20, "max_side": 9000, "max_pixels": 80_000_000}
        limits["max_total_pixels"] = 80_000_000
        bomb = samples.black_png(8900, 8900).replace(*_in_colour(8900))

        with pytest.raises(ImpossiblePicture) as error:
            take(bomb, **limits)

        assert error.value.code == "too_much_memory"
        assert take(saved(drawing(), "PNG"), **limits).width == 60

    def test_by_taking_too_long_is_refused_on_time(self, take, slow):
        take(saved(drawing(), "PNG"))
        start = time.monotonic()

        with pytest.raises(ImpossiblePicture) as error:
            take(slow, decode_seconds=1, **SLOW)

        assert error.value.code == "decoder_timeout"
        assert time.monotonic() - start < 10
        assert take(saved(drawing(), "PNG")).width == 60

    def test_by_standing_still_is_refused_on_time(self, take, decoders):
        take(saved(drawing(), "PNG"))
        stopped = decoders.pids
        end_all(stopped, signal.SIGSTOP)

        with pytest.raises(ImpossiblePicture) as error:
            take(saved(drawing(), "PNG"), decode_seconds=1)

        assert error.value.code == "decoder_timeout"
        end_all(stopped, signal.SIGCONT)
        assert take(saved(drawing(), "PNG")).width == 60

    def test_the_kernel_ends_a_decoder_that_computes_too_long(self):
        """Should the guard itself stand still meanwhile."""
        program = textwrap.dedent("""
            import resource
            from albums.decoding import child
            child._allow_cpu(1)
            while True:
                pass
        """)

        ended = subprocess.run([sys.executable, "-c", program], cwd=pool._SOURCE_ROOT, timeout=60)

        assert ended.returncode == -signal.SIGXCPU


@linux
class TestThePool:
    def test_twenty_at_once_all_get_their_own_answer(self, take, decoders, tmp_path, staging):
        def one(number):
            path = tmp_path / f"{number}.png"
            path.write_bytes(saved(drawing(20 + number, 40), "PNG"))
            options = {"name": path.name, "content_type": "image/png", "staging": staging}
            return vet(path, limits=UploadsConfig(), thumbnail_size=30, **options)

        with ThreadPoolExecutor(20) as threads:
            kept = list(threads.map(one, range(20)))

        assert [picture.width for picture in kept] == list(range(20, 40))
        assert len({picture.path for picture in kept}) == 20
        assert len(decoders.pids) == 2

    def test_one_picture_decodes_while_another_one_hangs(self, take, slow, tmp_path, staging):
        path = tmp_path / "slow.png"
        path.write_bytes(slow)
        options = {"name": path.name, "content_type": "", "staging": staging, "thumbnail_size": 300}
        with ThreadPoolExecutor(1) as other:
            hanging = other.submit(vet, path, limits=UploadsConfig(decode_seconds=3, **SLOW), **options)
            assert take(saved(drawing(), "PNG")).width == 60
            assert not hanging.done()
            assert isinstance(hanging.exception(), ImpossiblePicture)

    def test_decoders_that_were_killed_while_they_waited_cost_nothing(self, take, decoders):
        take(saved(drawing(), "PNG"))
        wait_until(lambda: len(decoders.pids) == 2)
        killed = decoders.pids
        end_all(killed, signal.SIGKILL)
        wait_until(lambda: all(state_of(pid) in ("Z", "") for pid in killed))

        for _ in range(3):
            assert take(saved(drawing(), "PNG")).width == 60

        assert decoders.pids - killed

    def test_decoders_are_replaced_now_and_then(self, take, monkeypatch):
        monkeypatch.setattr(pool, "PICTURES_PER_DECODER", 2)
        limits = {"decoders": 1, "max_file_bytes": 1_000_000}
        decoders = pool.decoders(UploadsConfig(**limits))
        seen = set()
        for _ in range(5):
            take(saved(drawing(), "PNG"), **limits)
            wait_until(lambda: decoders.pids)
            seen |= decoders.pids

        assert len(seen) >= 2
        assert len(decoders.pids) == 1

    def test_says_so_when_no_decoder_is_free(self, take, monkeypatch):
        monkeypatch.setattr(pool, "WAIT_SECONDS", 0.2)
        limits = {"decoders": 1}
        decoders = pool.decoders(UploadsConfig(**limits))
        place = decoders._idle.get()
        try:
            with pytest.raises(DecoderUnavailable) as error:
                take(saved(drawing(), "PNG"), **limits)
        finally:
            decoders._idle.put(place)

        assert error.value.code == "decoder_unavailable"
        assert take(saved(drawing(), "PNG"), **limits).width == 60

    def test_follows_the_limits_in_force(self, take):
        small, large = {"decoders": 1}, {"decoders": 3}
        take(saved(drawing(), "PNG"), **small)
        before = pool.decoders(UploadsConfig(**small))
        old = before.pids

        take(saved(drawing(), "PNG"), **large)

        assert pool.decoders(UploadsConfig(**large)) is not before
        assert not before.pids
        assert not [pid for pid in old if state_of(pid)]


@linux
class TestChangedLimits:
    def test_pictures_that_wait_meanwhile_have_their_turn(self, tmp_path, staging):
        path = tmp_path / "a.png"
        path.write_bytes(saved(drawing(600, 400), "PNG"))

        def one(number):
            limits = UploadsConfig(decoders=1 + number % 3)
            return vet(
                path, name="a.png", content_type="", staging=staging, limits=limits, thumbnail_size=300
            )

        with ThreadPoolExecutor(8) as threads:
            kept = list(threads.map(one, range(24)))

        assert [picture.width for picture in kept] == [600] * 24


@linux
class TestADecoder:
    def test_has_limits_and_no_secrets(self, take, decoders, monkeypatch):
        monkeypatch.setenv("DATABASE_URL", "postgres://secret")
        pool.close()
        take(saved(drawing(), "PNG"))
        pid = next(iter(pool.decoders(UploadsConfig()).pids))
        wait_until(lambda: resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0))

        memory, hard = resource.prlimit(pid, resource.RLIMIT_AS)
        assert memory == hard == UploadsConfig().decoder_memory_bytes
        assert resource.prlimit(pid, resource.RLIMIT_FSIZE)[1] == 4 * UploadsConfig().max_file_bytes
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        assert resource.prlimit(pid, resource.RLIMIT_NPROC) == (0, 0)
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[1] <= 32
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        names = {
            entry.partition(b"=")[0].decode()
            for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        }
        assert names - {""} == set(pool._ENVIRONMENT)
        assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()
        assert {fd.name for fd in Path(f"/proc/{pid}/fd").iterdir()} == {"0", "1", "2", "3"}

    def test_does_not_know_django(self):
        program = "import sys, albums.decoding.child; print([m for m in ('django', 'pydantic') if m in sys.modules])"

        said = subprocess.run(
            [sys.executable, "-c", program], cwd=pool._SOURCE_ROOT, capture_output=True, text=True, check=True
        )

        assert said.stdout == "[]\n"

    def test_outlives_the_thread_that_first_asked_for_it(self, take):
        pool.close()
        thread = threading.Thread(target=take, args=(saved(drawing(), "PNG"),))
        thread.start()
        thread.join()
        before = pool.decoders(UploadsConfig()).pids

        take(saved(drawing(), "PNG"))

        assert pool.decoders(UploadsConfig()).pids >= before
        assert all(state_of(pid) in ("S", "R") for pid in before)


PROGRAM = """
import os, signal, sys
from pathlib import Path
from albums.decoding import pool, vet
from imagehub.config_schema import UploadsConfig

folder = Path(sys.argv[1])

def take(**limits):
    limits = UploadsConfig(**limits)
    picture = vet(folder / "a.png", name="a.png", content_type="", staging=folder, limits=limits, thumbnail_size=300)
    assert picture.width == 60
    return pool.decoders(limits).pids

print(*take(), flush=True)
"""

KILLED = """
[pid] = take(decoders=1)
print(pid, flush=True)
os.kill(pid, signal.SIGSTOP)  # so that it cannot even notice that the pipe is closed
os.kill(os.getpid(), signal.SIGKILL)
"""

FORKED = """
mine = take()
if os.fork() == 0:
    print(*take(), flush=True)
    pool.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert take() == mine
"""


@linux
class TestProcesses:
    @pytest.fixture
    def run(self, tmp_path):
        """Run a program that has taken a picture; return its exit status and the decoders it told of, by lines."""
        (tmp_path / "a.png").write_bytes(saved(drawing(), "PNG"))

        def run(rest):
            said = subprocess.run(
                [sys.executable, "-W", "error", "-c", PROGRAM + rest, tmp_path],
                cwd=pool._SOURCE_ROOT,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert "Error" not in said.stderr, said.stderr
            return said.returncode, [set(map(int, line.split())) for line in said.stdout.splitlines()]

        return run

    def test_no_decoder_stays_when_a_program_ends(self, run):
        code, [pids] = run("")

        assert code == 0
        wait_until(lambda: all(state_of(pid) in ("Z", "") for pid in pids))

    def test_no_decoder_stays_when_a_program_is_killed(self, run):
        code, [_, pids] = run(KILLED)

        assert code == -signal.SIGKILL
        wait_until(lambda: all(state_of(pid) in ("Z", "") for pid in pids))

    def test_a_forked_process_starts_its_own(self, run):
        code, [pids, forked] = run(FORKED)

        assert code == 0
        assert pids
        assert forked
        assert not pids & forked


def _in_colour(side):
    """Return what makes a header of one bit one of four bytes a pixel, for ``bytes.replace``."""
    return samples.png_header(side, side, 1, 0), samples.png_header(side, side, 8, 6)
