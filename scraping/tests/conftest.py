from collections.abc import Iterator

import pytest

from scraping.tests.sites import Site


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def other_site() -> Iterator[Site]:
    site = Site("127.0.0.2")
    yield site
    site.close()
