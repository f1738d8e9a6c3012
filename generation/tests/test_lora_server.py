"""Imports through the web server as it ships: what is refused unread, and a file larger than any other body may be."""

import http.client
import json

import pytest

from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory
from imagehub.roots import models_root
from training.models import Adapter
from training.tests.weight_headers import lora_shapes, write_header

pytestmark = pytest.mark.django_db(transaction=True)

MIB = 1024 * 1024
BOUNDARY = "a-boundary"
FIRST = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="large.safetensors"\r\n'
    "Content-Type: application/octet-stream\r\n\r\n"
).encode()
LAST = f"\r\n--{BOUNDARY}--\r\n".encode()


@pytest.fixture
def send(server, set_config):
    """Send the head of an import, and as much of a body as the server waits for."""
    set_config("{storage: {minimum_free_bytes: 0}, rate_limits: {upload: {limit: 0, window_seconds: 60}}}")
    base, _ = server

    def request(token, length, *parts):
        client = http.client.HTTPConnection(base.removeprefix("http://"), timeout=60)
        client.putrequest("POST", "/api/loras")
        for name, value in (
            ("Authorization", f"Bearer {token}"),
            ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}"),
            ("Content-Length", str(length)),
        ):
            client.putheader(name, value)
        client.endheaders()
        for part in parts:
            client.send(part)
        response = client.getresponse()
        answer = json.loads(response.read())
        client.close()
        return response.status, answer

    return request


def test_imports_over_the_wire(send, tmp_path):
    ApiTokenFactory(user=UserFactory(staff=True), secret="ih_a-token-for-imports")

    # Refusals that need no body come before one is sent.
    assert send("ih_nobody", 500 * MIB)[0] == 401
    status, answer = send("ih_a-token-for-imports", 2000 * MIB)
    assert (status, answer["code"]) == (413, "too_large")

    # A file that is larger than the body of any other request may be is read while it comes.
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_{}_attn2_to_k"
    layers = {name.format(number): (768, 320) for number in range(6)}
    path = write_header(tmp_path / "large", lora_shapes(layers, rank=17_000, alpha=False))
    size = path.stat().st_size
    assert size > 208 * MIB
    with path.open("rb") as file:
        status, answer = send(
            "ih_a-token-for-imports",
            len(FIRST) + size + len(LAST),
            FIRST,
            *iter(lambda: file.read(MIB), b""),
            LAST,
        )

    assert (status, answer["name"], answer["rank"], answer["size_bytes"]) == (201, "large", 17_000, size)
    assert (models_root() / Adapter.objects.get().source).stat().st_size == size
