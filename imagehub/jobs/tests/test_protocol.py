import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagehub.jobs.protocol import (
    EVENTS_FD,
    MAX_LINE_BYTES,
    REQUESTS_FD,
    STATUS_LOST,
    Channel,
    ChildExit,
    ExitCode,
    GuardChannel,
    LineBuffer,
    decode,
    encode,
)

ROOT = Path(__file__).parents[3]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
messages = st.dictionaries(st.text(), json_values, max_size=4)
lines = messages.map(encode) | st.binary(max_size=30).map(lambda noise: noise.replace(b"\n", b"") + b"\n")


def read(pieces):
    buffer = LineBuffer()
    found = [message for piece in pieces for message in buffer.feed(piece)]
    buffer.close()
    return found, buffer.skipped


class TestMessages:
    @given(messages)
    def test_come_back_as_they_went(self, message):
        line = encode(message)

        assert line.count(b"\n") == 1
        assert decode(line) == message

    def test_refuse_numbers_that_json_lacks(self):
        with pytest.raises(ValueError, match="Out of range"):
            encode({"loss": float("nan")})

    @pytest.mark.parametrize("line", [b"", b"[1]", b'"text"', b"\xff\xfe", b"{", b"[" * 100_000])
    def test_are_told_from_noise(self, line):
        assert decode(line) is None


class TestLineBuffer:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(lines, max_size=8), st.binary(max_size=10), st.data())
    def test_finds_the_same_messages_however_the_stream_is_cut(self, written, rest, data):
        stream = b"".join(written) + rest
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

        assert read(pieces) == read([stream])

    @settings(max_examples=50, deadline=None)
    @given(st.lists(messages, max_size=6))
    def test_finds_every_message_byte_by_byte(self, sent):
        stream = b"".join(map(encode, sent))

        assert read(bytes([byte]) for byte in stream) == (sent, 0)

    @pytest.mark.parametrize("size", [1000, 65_536, 10_000_000])
    @pytest.mark.parametrize("length", [MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 5_000_000])
    def test_skips_an_overlong_line_and_goes_on(self, length, size):
        stream = b"x" * length + b"\n" + encode({"event": "next"})

        found = read(stream[start : start + size] for start in range(0, len(stream), size))

        assert found == ([{"event": "next"}], 1)

    def test_takes_the_end_of_an_overlong_line_for_no_message(self):
        assert read([b"x" * (MAX_LINE_BYTES + 1), b'{"event": "end"}\n', b'{"n": 1}\n']) == ([{"n": 1}], 1)

    def test_keeps_no_more_than_one_line(self):
        buffer = LineBuffer()

        for _ in range(100):
            buffer.feed(b"x" * 100_000)

        assert len(buffer._pending) <= MAX_LINE_BYTES
        assert buffer.skipped == 0

    def test_counts_an_unfinished_line_once(self):
        assert read([b'{"event": "ha']) == ([], 1)
        assert read([b"  "]) == ([], 0)


class TestChannels:
    @pytest.fixture
    def guard(self):
        channel = GuardChannel()
        yield channel
        channel.close()

    @pytest.fixture
    def child(self, guard, monkeypatch):
        for name, value in guard.environment.items():
            monkeypatch.setenv(name, value)
        channel = Channel.from_environment()
        guard.child_ends = ()
        yield channel
        channel._events.close()
        channel._requests.close()

    def test_carry_events_and_requests(self, guard, child):
        child.emit("step", step=3)
        guard.send({"type": "stop"})

        (event,) = guard.exchange(5)
        assert (event["event"], event["step"], event["seq"], event["v"]) == ("step", 3, 1, 1)
        assert next(child.requests()) == {"type": "stop"}

    def test_hand_nothing_on_to_the_programs_of_a_program(self, child):
        assert EVENTS_FD not in os.environ
        assert REQUESTS_FD not in os.environ

    def test_the_guard_never_waits_for_a_reader(self, guard, child):
        guard.send({"type": "text", "text": "x" * 1_000_000})

        assert guard.exchange(0) == []

    def test_the_guard_sends_the_rest_later(self, guard, child):
        sent = {"type": "text", "text": "x" * 300_000}
        guard.send(sent)
        received = b""

        while not received.endswith(b"\n"):
            received += os.read(child._requests.fileno(), 65_536)
            guard.exchange(0)

        assert json.loads(received) == sent

    def test_the_guard_notices_that_nobody_reads(self, guard, child):
        child._requests.close()

        guard.send({"type": "stop"})
        guard.send({"type": "stop"})

        assert guard.exchange(0) == []

    def test_the_guard_notices_that_nobody_writes(self, guard, child):
        child.emit("last")
        child._events.close()

        assert [m["event"] for m in guard.exchange(1) + guard.exchange(1)] == ["last"]
        assert guard.is_dry

    def test_requests_end_with_the_guard(self, guard, child):
        guard.close()

        assert list(child.requests()) == []

    def test_reach_a_program_that_a_launcher_starts_without_them(self, guard):
        program = (
            "from imagehub.jobs.protocol import Channel\n"
            "channel = Channel.from_environment()\n"
            "channel.emit('echo', got=next(channel.requests()))\n"
        )
        launcher = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {program!r}]))"
        guard.send({"n": 1})
        process = subprocess.Popen(
            [sys.executable, "-c", launcher],
            cwd=ROOT,
            env=os.environ | guard.environment,
            pass_fds=guard.child_ends,
        )
        guard.close_child_ends()

        events = []
        while not guard.is_dry:
            events += guard.exchange(5)

        assert process.wait(timeout=30) == 0
        assert [event["got"] for event in events] == [{"n": 1}]

    def test_serve_by_hand_without_a_guard(self):
        program = (
            "from imagehub.jobs.protocol import Channel\n"
            "channel = Channel.from_environment()\n"
            "print('noise')\n"
            "for request in channel.requests(): channel.emit('echo', got=request)\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            input='{"n": 1}\nnoise\n{"n": 2}\n',
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )

        assert [json.loads(line)["got"] for line in ran.stdout.splitlines()] == [{"n": 1}, {"n": 2}]
        assert "noise" in ran.stderr


class TestChildExit:
    @pytest.mark.parametrize("code", ExitCode)
    def test_names_and_explains_every_code(self, code):
        assert ChildExit(code).name == code.name.lower()
        assert ChildExit(code).description.endswith(".")
        assert "exit status" not in ChildExit(code).description

    @pytest.mark.parametrize(
        ("ended", "name", "part"),
        [
            (ChildExit(1), "exit_1", "exit status 1"),
            (ChildExit(-9), "SIGKILL", "ran out of memory"),
            (ChildExit(-9, is_ours=True), "SIGKILL", "from here"),
            (ChildExit(-15), "SIGTERM", "Something else"),
            (ChildExit(-11), "SIGSEGV", "crashed"),
            (ChildExit(-63), "signal_63", "crashed"),
            (ChildExit(STATUS_LOST), "unknown", "not known"),
        ],
    )
    def test_tells_signals_apart(self, ended, name, part):
        assert ended.name == name
        assert part in ended.description


def test_child_programs_need_no_django():
    program = "import imagehub.jobs.child, imagehub.jobs.protocol, sys; sys.exit('django' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
