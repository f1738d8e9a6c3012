"""Fixtures of the guard's tests. Something always listens on 127.0.0.1, on the port of the site."""

from collections.abc import Iterator

import pytest

from imagehub.egress.policy import Policy
from imagehub.egress.tests import servers
from imagehub.egress.tests.checklist import OWN_HOSTS


@pytest.fixture
def site_and_decoy() -> Iterator[tuple[servers.Site, servers.Decoy]]:
    site, decoy = servers.site_and_decoy()
    yield site, decoy
    decoy.close()
    site.close()


@pytest.fixture
def site(site_and_decoy) -> servers.Site:
    return site_and_decoy[0]


@pytest.fixture
def decoy(site_and_decoy) -> servers.Decoy:
    """On the port of the site: whoever resolves a name of the site anew finds this."""
    return site_and_decoy[1]


@pytest.fixture
def values(site) -> dict[str, list]:
    """What makes a policy for which the site is public, and only that."""
    return {
        "allow_private": [f"{servers.SITE}/32"],
        "own_hosts": list(OWN_HOSTS),
        "ports": [80, 443, site.port],
    }


@pytest.fixture
def policy(values) -> Policy:
    return Policy.read(**values)
