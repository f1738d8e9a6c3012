import pytest

from albums.decoding import vet
from imagehub.config_schema import UploadsConfig

NAMES = {b"\x89PNG": "picture.png", b"\xff\xd8\xff": "picture.jpg", b"RIFF": "picture.webp"}


@pytest.fixture
def staging(tmp_path):
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


@pytest.fixture
def take(tmp_path, staging):
    """Vet some bytes, under a name that fits them unless another one is given."""

    def take(data, *, name=None, content_type="", thumbnail_size=300, **limits):
        path = tmp_path / "as it came"
        path.write_bytes(data)
        fitting = next((name for start, name in NAMES.items() if data.startswith(start)), "picture.png")
        return vet(
            path,
            name=fitting if name is None else name,
            content_type=content_type,
            staging=staging,
            limits=UploadsConfig(**limits),
            thumbnail_size=thumbnail_size,
        )

    return take
