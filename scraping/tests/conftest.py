from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User

from imagehub.accounts.tests.factories import UserFactory
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


@pytest.fixture
def quick(settings) -> None:
    """Loopback addresses are the web, and hosts may be asked at short intervals."""
    settings.SCRAPING_ALLOW_PRIVATE = ["127.0.0.0/8"]
    settings.CONFIG_FILE.write_text(
        "storage: {minimum_free_bytes: 0}\nscraping: {interval_seconds: 0.02, request_seconds: 10, grace_seconds: 10}\n"
    )


@pytest.fixture
def staff(db) -> User:
    return UserFactory(staff=True)
