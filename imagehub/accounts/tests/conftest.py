from collections.abc import Iterator

import pytest
from allauth.socialaccount.providers.google import views

from imagehub.accounts.tests.openid_provider import CLIENT_ID, CLIENT_SECRET, OpenIdProvider


@pytest.fixture
def openid() -> Iterator[OpenIdProvider]:
    """A provider that nobody knows yet."""
    provider = OpenIdProvider()
    yield provider
    provider.shutdown()
    provider.server_close()


@pytest.fixture
def google(openid, settings, monkeypatch) -> OpenIdProvider:
    """The provider in Google's place, in this process. allauth reads its addresses when it is imported."""
    settings.SOCIALACCOUNT_PROVIDERS = {
        "google": settings.SOCIALACCOUNT_PROVIDERS["google"]
        | {"APPS": [{"client_id": CLIENT_ID, "secret": CLIENT_SECRET}]}
    }
    monkeypatch.setattr(views.GoogleOAuth2Adapter, "authorize_url", f"{openid.url}/authorize")
    monkeypatch.setattr(views.GoogleOAuth2Adapter, "access_token_url", f"{openid.url}/token")
    monkeypatch.setattr(views, "ID_TOKEN_ISSUER", openid.url)
    return openid
