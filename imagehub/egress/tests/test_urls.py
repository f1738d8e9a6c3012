import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagehub.egress.policy import NOT_PUBLIC, BlockedAddress, Policy
from imagehub.egress.tests.checklist import OWN_HOSTS, REFUSED_AT_SUBMISSION
from imagehub.egress.urls import MAX_URL_LENGTH, vet_redirect, vet_url

POLICY = Policy(own_hosts=OWN_HOSTS, ports=frozenset({80, 443, 8000}))
ROWS = [
    pytest.param(url.replace("{port}", "8000"), id=f"row {row}: {url!r}")
    for row, urls in REFUSED_AT_SUBMISSION.items()
    for url in urls
]


@pytest.mark.parametrize("url", ROWS)
def test_a_hostile_address_is_refused_as_it_stands(url):
    with pytest.raises(BlockedAddress) as caught:
        vet_url(url, POLICY, pointer="/urls/3")

    assert (caught.value.code, caught.value.pointer) == ("blocked_address", "/urls/3")
    assert str(caught.value).endswith(".")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "vetted"),
    [
        ("http://example.com", "http://example.com/"),
        ("HTTPS://Example.COM.:443/A?b=C#d", "https://example.com/A?b=C"),
        ("http://example.com:443", "http://example.com:443/"),
        ("http://example.com?q=1", "http://example.com/?q=1"),
        ("http://my_host.example.com/~a/(1)", "http://my_host.example.com/~a/(1)"),
        ("https://bücher.example/süß?ä=ö", "https://xn--bcher-kva.example/s%C3%BC%C3%9F?%C3%A4=%C3%B6"),
        ("http://ｅｘａｍｐｌｅ。com/", "http://example.com/"),
        ("http://93.184.216.34/a%20b", "http://93.184.216.34/a%20b"),
        ("http://[2606:4700:4700:0::1111]:8000/", "http://[2606:4700:4700::1111]:8000/"),
        ("http://example.com/%0d%0aX:1", "http://example.com/%0d%0aX:1"),
        ("http://example.com/a@b:c", "http://example.com/a@b:c"),
        ("http://notimages.example.net/", "http://notimages.example.net/"),
        ("http://internal.example/", "http://internal.example/"),
    ],
)
def test_what_is_let_through_has_one_spelling(url, vetted):
    assert vet_url(url, POLICY) == vetted
    assert vet_url(vetted, POLICY) == vetted


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://example.com/\r\nX:1",
            "http://example.com/ a",
            "http://exam ple.com/",
            "http://example..com/",
        ),
        *(f"http://{'a' * 64}.com/", "http://-a.com/", "http://[1.1.1.1]/", "http://::1/", "http://[::1/"),
        *("http://example.com:/", f"http://example.com/{'a' * MAX_URL_LENGTH}", "http://example.com/\ud800"),
        *("http://xn--a.com/\\", "http://1.1.1.256/", "http://1.1.1.0x1/", "http://a.0x/"),
    ],
)
def test_what_cannot_be_read_in_one_way_is_refused(url):
    with pytest.raises(BlockedAddress):
        vet_url(url, POLICY)


@given(
    st.text(max_size=40),
    st.sampled_from(["", "http://", "https://", "http://127.0.0.1:8000", "http://[", "http:"]),
)
def test_any_text_is_refused_or_read(text, beginning):
    try:
        vetted = vet_url(beginning + text, POLICY)
    except BlockedAddress:
        return
    assert vetted.isascii()
    assert vet_url(vetted, POLICY) == vetted


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b", "https://example.com/b"),
        ("b?c", "https://example.com/a/b?c"),
        ("//example.org/", "https://example.org/"),
        ("https://example.org:443/x#y", "https://example.org/x"),
    ],
)
def test_a_redirect_leads_on(location, target):
    assert vet_redirect(location, source="https://example.com/a/", policy=POLICY) == target


@pytest.mark.parametrize(
    "location",
    [
        *(
            "//127.0.0.1:8000/",
            "\\\\127.0.0.1\\",
            "/\\127.0.0.1/",
            "\t//127.0.0.1/",
            "http://[",
            "///127.0.0.1/",
        ),
        *("http://169.254.169.254/", "file:///etc/hostname", "gopher://127.0.0.1:8000/_INFO", "data:,x"),
        *(
            "http://example.com/",
            "//images.example.net/",
            "https://user@example.com/",
            "https://example.com:22/",
        ),
    ],
)
def test_a_redirect_is_vetted_like_any_address(location):
    with pytest.raises(BlockedAddress):
        vet_redirect(location, source="https://example.com/a/", policy=POLICY)


def test_private_addresses_are_all_refused_in_the_same_words():
    urls = [
        "http://127.0.0.1/",
        "http://10.0.0.1:1/",
        "http://localhost/",
        "http://[::1]:6379/",
        "http://printer/",
    ]
    told = set()
    for url in [*urls, "http://images.example.net:9/"]:
        with pytest.raises(BlockedAddress) as caught:
            vet_url(url, POLICY)
        told.add(str(caught.value))

    assert told == {NOT_PUBLIC}
