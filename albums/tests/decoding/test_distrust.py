"""What if a picture gets the better of a decoder, or there is none? Nothing that a child says is believed unseen."""

import sys

import pytest

from albums.decoding import ImpossiblePicture, pool
from albums.decoding.refusals import DecoderUnavailable
from albums.tests.decoding.samples import drawing, saved

BAD = """
import json, sys, os
print('{"ready": true}', flush=True)
for line in sys.stdin:
    request = json.loads(line)
    %s
"""


class TestADecoderThatSomebodyTookOver:
    @pytest.fixture
    def become(self, monkeypatch):
        def become(*lines):
            program = BAD % "\n    ".join(lines)
            monkeypatch.setattr(pool, "_PROGRAM", [sys.executable, "-c", program])
            pool.close()

        yield become
        pool.close()

    @pytest.mark.parametrize(
        "lines",
        [
            ["print('{}', flush=True)"],
            ["print('no JSON', flush=True)"],
            ["print('[1, 2]', flush=True)"],
            ["print('x' * 1_000_000, flush=True)"],
            ['print(\'{"errno": "x"}\', flush=True)'],
            ["print('{\"has_thumbnail\": false}', flush=True)"],
            [
                "open(request['clean'], 'w').write('<script>')",
                "print('{\"has_thumbnail\": false}', flush=True)",
            ],
            [
                "os.symlink(request['source'], request['clean'])",
                "print('{\"has_thumbnail\": false}', flush=True)",
            ],
            ["os.mkfifo(request['clean'])", "print('{\"has_thumbnail\": false}', flush=True)"],
            [
                "os.link(request['source'], request['clean'])",
                "print('{\"has_thumbnail\": true}', flush=True)",
            ],
            [
                "os.link(request['source'], request['clean'])",
                "os.link(request['source'], request['thumbnail'])",
                "print('{\"has_thumbnail\": true}', flush=True)",
            ],
        ],
    )
    def test_is_not_believed(self, take, staging, become, lines):
        become(*lines)

        with pytest.raises(ImpossiblePicture) as error:
            take(saved(drawing(), "PNG"), thumbnail_size=30)

        assert error.value.code == "decoder_crashed"
        assert list(staging.iterdir()) == []

    def test_cannot_pass_off_another_picture(self, take, become):
        other = saved(drawing(61, 40), "PNG")
        become(
            f"open(request['clean'], 'wb').write({other!r})",
            "print('{\"has_thumbnail\": false}', flush=True)",
        )

        with pytest.raises(ImpossiblePicture) as error:
            take(saved(drawing(), "PNG"))

        assert error.value.code == "decoder_crashed"

    def test_a_program_that_does_not_start_is_no_fault_of_the_picture(self, take, monkeypatch):
        monkeypatch.setattr(pool, "_PROGRAM", [sys.executable, "-c", "raise SystemExit(1)"])
        pool.close()
        try:
            with pytest.raises(DecoderUnavailable):
                take(saved(drawing(), "PNG"))
            monkeypatch.setattr(pool, "_PROGRAM", ["/nowhere"])
            with pytest.raises(DecoderUnavailable):
                take(saved(drawing(), "PNG"))
        finally:
            pool.close()
