import sys

import pytest
from rest_framework.test import APIClient

from albums.tests.factories import AlbumFactory, ImageFactory, LabelFactory, picture
from imagehub.accounts.tests.factories import UserFactory
from training.services import promoting


@pytest.fixture
def staff():
    client = APIClient()
    client.user = UserFactory(staff=True)
    client.force_authenticate(client.user)
    return client


@pytest.fixture
def album():
    """Two pictures with the caption `a zebra`."""
    images = [
        ImageFactory(content=picture(color=color, size=(64, 64)), width=64, height=64)
        for color in ("red", "blue")
    ]
    for image in images:
        LabelFactory(image=image, text="a zebra")
    return AlbumFactory(images=images)


@pytest.fixture
def exports(monkeypatch):
    """Let a small program write the file of an adapter, or fail to."""

    def play(script: str = "write_sd1_adapter(Path(sys.argv[-1]), mark=sys.argv[-1])") -> None:
        program = (
            "import sys; from pathlib import Path; from imagehub.jobs.protocol import Channel;"
            "from training.tests.weight_headers import write_sd1_adapter;"
        )
        monkeypatch.setattr(
            promoting, "command", lambda arguments: [sys.executable, "-c", program + script, *arguments]
        )

    return play
