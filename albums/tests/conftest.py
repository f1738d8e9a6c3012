import pytest

from albums.tests.clients import client_of
from imagehub.accounts.tests.factories import UserFactory


@pytest.fixture
def visitor():
    return client_of()


@pytest.fixture
def staff():
    return client_of(UserFactory(staff=True))
