import pytest
from django.test import RequestFactory

from imagehub.client_address import client_address


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "address"),
    [
        (0, "203.0.113.9", "", "203.0.113.9"),
        (0, "203.0.113.9", "198.51.100.1", "203.0.113.9"),  # nobody of ours wrote that
        (1, "127.0.0.1", "198.51.100.1", "198.51.100.1"),
        (1, "127.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        (1, "127.0.0.1", "6.6.6.6,7.7.7.7 , 198.51.100.1:4711", "198.51.100.1"),
        (2, "127.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.7", "198.51.100.1"),
        (1, "127.0.0.1", "", "127.0.0.1"),
        (1, "127.0.0.1", "'; DROP TABLE", "127.0.0.1"),
        (1, "", "198.51.100.1", "198.51.100.1"),  # through a Unix socket
        (1, "", "", "unknown"),
        (0, "", "", "unknown"),
        (0, "::ffff:203.0.113.9", "", "203.0.113.9"),
        (1, "127.0.0.1", "[2001:DB8:0::1]:4711", "2001:db8::1"),
        (1, "127.0.0.1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_only_what_our_own_proxies_wrote_is_believed(settings, proxies, peer, forwarded, address):
    settings.TRUSTED_PROXIES = proxies
    headers = {"x-forwarded-for": forwarded} if forwarded else {}

    request = RequestFactory().get("/", REMOTE_ADDR=peer, headers=headers)

    assert client_address(request) == address


@pytest.mark.parametrize("header", ["x-real-ip", "forwarded", "cf-connecting-ip", "true-client-ip"])
def test_other_headers_are_not_believed(settings, header):
    settings.TRUSTED_PROXIES = 1

    request = RequestFactory().get("/", REMOTE_ADDR="203.0.113.9", headers={header: "for=6.6.6.6"})

    assert client_address(request) == "203.0.113.9"
