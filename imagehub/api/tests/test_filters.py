import pytest

from imagehub.accounts.tests.factories import ApiTokenFactory

pytestmark = [pytest.mark.django_db, pytest.mark.urls("imagehub.api.tests.urls")]


def errors(response):
    assert response.status_code == 400
    return [(error["pointer"], error["code"]) for error in response.json()["errors"]]


class TestUnknownParameters:
    @pytest.mark.parametrize("path", ["/api/tokens", "/api/plain"])
    def test_are_refused_by_name(self, client, path):
        assert errors(client.get(f"{path}?statsu=failed&limit=5&a/b=1")) == [
            ("/statsu", "unknown_parameter"),
            ("/a~1b", "unknown_parameter"),
        ]

    def test_include_what_reaches_into_other_tables(self, client):
        assert errors(client.get("/api/tokens?user__password__startswith=a")) == [
            ("/user__password__startswith", "unknown_parameter")
        ]

    @pytest.mark.parametrize(
        "query",
        [
            "format=json",
            "limit=5",
            "count=exact",
            "ordering=name",
            "user=1",
            "created_after=2020-01-01T00:00Z",
        ],
    )
    def test_do_not_include_those_of_filters_pages_and_format(self, client, query):
        assert client.get(f"/api/tokens?{query}").status_code == 200

    def test_are_none_of_the_business_of_a_single_object(self, client):
        token = ApiTokenFactory()

        assert client.get(f"/api/tokens/{token.pk}?user=0&size=3").status_code == 200


class TestValues:
    def test_select_rows(self, client):
        token, _ = ApiTokenFactory(), ApiTokenFactory()

        rows = client.get(f"/api/tokens?user={token.user_id}").json()["results"]

        assert [row["id"] for row in rows] == [str(token.pk)]

    @pytest.mark.parametrize(
        ("query", "pointer"),
        [("user=ten", "/user"), ("user=NaN", "/user"), ("created_after=noon", "/created")],
    )
    def test_are_refused_when_they_are_invalid(self, client, query, pointer):
        assert errors(client.get(f"/api/tokens?{query}")) == [(pointer, "invalid")]
