import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from imagehub.egress.addresses import BLOCKED_IPV4, BLOCKED_IPV6, is_own, is_public

PUBLIC = """
1.1.1.1 8.8.8.8 93.184.216.34 172.32.0.1 100.128.0.1 192.0.1.1 223.255.255.255
2606:4700:4700::1111 2a00:1450:4001::1 ::ffff:8.8.8.8 64:ff9b::808:808
"""
NOT_PUBLIC = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.255.255.254 168.63.129.16
169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255
198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
:: ::1 ::ffff:127.0.0.1 ::ffff:100.100.100.200 ::127.0.0.1 ::8.8.8.8 ::5efe:10.0.0.1
64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::a83f:8110 64:ff9b:1::808:808
2002:7f00:1:: 2002:808:808:: 2001:0:7f00:1:: 2001:db8::1 3fff::1 4000::1 5f00::1
fe80::1 fe80::1%eth0 2606:4700::1%eth0 fec0::1 fd00:ec2::254 fc00::1 ff02::1
localhost 127.1 1.1.1.1.1
"""


@pytest.mark.parametrize("address", PUBLIC.split())
def test_the_internet_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize("address", ["", *NOT_PUBLIC.split()])
def test_nothing_else_is(address):
    assert not is_public(address)


@pytest.mark.parametrize("network", [*BLOCKED_IPV4, *BLOCKED_IPV6])
def test_a_network_is_refused_from_its_first_address_to_its_last(network):
    assert not is_public(network[0])
    assert not is_public(network[-1])


@pytest.mark.parametrize("network", BLOCKED_IPV4)
def test_an_address_is_refused_in_each_form_that_carries_it(network):
    inner = int(network[0])

    assert not is_public(IPv6Address(0xFFFF_0000_0000 | inner))  # mapped
    assert not is_public(IPv6Address(inner))  # compatible
    assert not is_public(IPv6Address((0x64_FF9B << 96) | inner))  # NAT64
    assert not is_public(IPv6Address((0x2002 << 112) | (inner << 80)))  # 6to4
    assert not is_public(IPv6Address((0x2001 << 112) | (inner ^ 0xFFFF_FFFF)))  # Teredo


def test_this_machine_knows_its_own_addresses():
    assert is_own(IPv4Address("127.0.0.1"))
    assert is_own(ip_address("::ffff:127.0.0.1"))
    assert not is_own(IPv4Address("93.184.216.34"))
    assert not is_own(IPv6Address("2606:4700:4700::1111"))


def test_the_address_of_an_interface_is_its_own():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("93.184.216.34", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no network")
        assert is_own(IPv4Address(probe.getsockname()[0]))
