import pytest
from django.core.checks import run_checks

from albums import checks

pytestmark = pytest.mark.cache  # Django's own checks look at it


def test_the_decoders_that_are_installed_are_recent():
    assert all(checks.decoder_versions().values())
    assert not [message for message in run_checks() if message.id.startswith("albums.")]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("Pillow", "12.2.0"),
        ("libwebp", "1.3.1"),
        ("libwebp", ""),
        ("libjpeg-turbo", "2.1.3"),
        ("Pillow", "9.5.0.post1"),
    ],
)
def test_an_old_or_missing_one_is_an_error(monkeypatch, name, version):
    monkeypatch.setattr(checks, "decoder_versions", lambda: {name: version})

    [message] = [message for message in run_checks() if message.id.startswith("albums.")]

    assert message.is_serious()
    assert name in message.msg


@pytest.mark.parametrize("version", ["12.3.0", "12.10", "13.0.0"])
def test_a_recent_one_is_none(monkeypatch, version):
    monkeypatch.setattr(checks, "decoder_versions", lambda: {"Pillow": version})

    assert checks.decoders_are_recent() == []
