import subprocess
import sys

import pytest
from django.conf import settings as django_settings

from imagehub.egress.policy import Allowed, BlockedAddress, Policy
from imagehub.egress.site import egress_policy, policy_values
from imagehub.egress.urls import vet_url


def policy(*allow_private: str, **values) -> Policy:
    return Policy.read(allow_private=allow_private, **values)


def is_let_through(policy: Policy, url: str, *answers: str) -> bool:
    """Whether an address passes as a text, and then as what its name resolves to."""
    host, _, port = url.removeprefix("http://").removesuffix("/").rpartition(":")
    try:
        vet_url(url, policy)
        policy.check_connection(host.strip("[]"), int(port), answers or [host.strip("[]")])
    except BlockedAddress:
        return False
    return True


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("127.0.0.1", ["http://127.0.0.1:80/", "http://127.0.0.1:8000/"], ["http://127.0.0.2:80/"]),
        ("127.0.0.1:8000", ["http://127.0.0.1:8000/"], ["http://127.0.0.1:8001/", "http://127.0.0.2:8000/"]),
        ("[::1]:8000", ["http://[::1]:8000/"], ["http://[::1]:80/", "http://[::2]:8000/"]),
        ("::1", ["http://[::1]:8000/"], ["http://[::2]:8000/"]),
        (
            "10.0.0.0/8",
            ["http://10.1.2.3:8080/", "http://[::ffff:10.1.2.3]:8080/"],
            ["http://11.0.0.1:8080/"],
        ),
        ("fd00::/8", ["http://[fd12::1]:8080/"], ["http://[fc00::1]:8080/", "http://[fe80::1]:80/"]),
    ],
)
def test_the_operator_opens_what_he_names_and_nothing_else(entry, inside, outside):
    assert all(is_let_through(policy(entry), url) for url in inside)
    assert not any(is_let_through(policy(entry), url) for url in outside)
    assert not any(is_let_through(policy(), url) for url in inside)


def test_a_name_that_is_opened_may_resolve_to_anything():
    opened = policy("intranet.example:8080")

    assert is_let_through(opened, "http://intranet.example:8080/", "10.0.0.5")
    assert not is_let_through(opened, "http://intranet.example:80/", "10.0.0.5")
    assert not is_let_through(opened, "http://other.example:80/", "10.0.0.5")


def test_a_network_that_is_opened_is_found_by_names_on_the_ports_of_the_web():
    opened = policy("10.0.0.0/8", own_hosts=["hub.example.net"])

    assert is_let_through(opened, "http://intranet.example:80/", "10.0.0.5")
    assert is_let_through(opened, "http://intranet.example:80/", "10.0.0.5", "93.184.216.34")
    assert not is_let_through(opened, "http://intranet.example:8080/", "10.0.0.5")
    assert not is_let_through(opened, "http://intranet.example:80/", "10.0.0.5", "192.168.0.1")
    assert not is_let_through(opened, "http://wiki:80/", "10.0.0.5")
    assert not is_let_through(opened, "http://hub.example.net:80/", "10.0.0.5")


def test_further_ports_are_those_of_public_hosts():
    assert is_let_through(policy(ports=[80, 8080]), "http://example.com:8080/", "93.184.216.34")
    assert not is_let_through(policy(ports=[80, 8080]), "http://example.com:8080/", "10.0.0.5")
    assert not is_let_through(policy(), "http://example.com:8080/", "93.184.216.34")


def test_this_server_is_refused_by_its_names_and_its_public_addresses():
    ours = policy(own_hosts=["*", ".Example.net", "8.8.8.8", "[2606:4700::1]"])

    assert not is_let_through(ours, "http://example.net:80/", "93.184.216.34")
    assert not is_let_through(ours, "http://a.example.net:80/", "93.184.216.34")
    assert not is_let_through(ours, "http://8.8.8.8:80/")
    assert not is_let_through(ours, "http://[2606:4700::1]:80/")
    assert not is_let_through(ours, "http://alias.example.org:80/", "8.8.8.8")
    assert is_let_through(ours, "http://badexample.net:80/", "93.184.216.34")


def test_this_server_is_refused_by_the_addresses_of_its_machine(monkeypatch):
    monkeypatch.setattr("imagehub.egress.policy.is_own", lambda address: str(address) == "8.8.8.8")

    assert not is_let_through(policy(), "http://8.8.8.8:80/")
    assert not is_let_through(policy(), "http://alias.example.org:80/", "1.1.1.1", "8.8.8.8")
    assert is_let_through(policy(), "http://1.1.1.1:80/")


@pytest.mark.parametrize(
    "host", ["2130706433", "127.1", "0x7f.1", "0177.0.0.1", "fe80::1%eth0", "a b", "", "localhost"]
)
def test_a_connection_to_a_host_that_was_never_vetted_is_refused(host):
    with pytest.raises(BlockedAddress):
        policy().check_connection(host, 80, ["93.184.216.34"])


@pytest.mark.parametrize(
    "entry",
    [
        *("10.0.0.1/8", "http://a.example", "a.example/path", "a:b:c", "a.example:0", "a.example:65536"),
        *(
            "a.example:",
            "user@a.example",
            "[::1",
            "[::1]8000",
            "[::1]:x",
            "*",
            "2130706433",
            "10.0.0.0/33",
            "a b",
        ),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(entry):
    with pytest.raises(
        ValueError, match="^" + "".join(f"[{c}]" if c.isalnum() else f"\\{c}" for c in entry) + "$"
    ):
        Allowed.read(["a.example", entry])


def test_the_installation_says_what_its_policy_is(settings, set_config):
    settings.SCRAPING_ALLOW_PRIVATE = ["10.0.0.0/8"]
    settings.ALLOWED_HOSTS = ["images.example.net"]
    set_config("egress: {ports: [80, 8080]}\n")

    assert policy_values() == {
        "allow_private": ["10.0.0.0/8"],
        "own_hosts": ["images.example.net"],
        "ports": [80, 8080],
    }
    assert egress_policy() == policy("10.0.0.0/8", own_hosts=["images.example.net"], ports=[80, 8080])


def test_child_programs_use_it_without_django():
    program = (
        "import sys, imagehub.egress.scrapy_guard, imagehub.egress.client; sys.exit('django' in sys.modules)"
    )

    assert (
        subprocess.run([sys.executable, "-c", program], cwd=django_settings.BASE_DIR, check=False).returncode
        == 0
    )
