import math

import pytest

pytestmark = [pytest.mark.django_db, pytest.mark.urls("imagehub.api.tests.urls")]


def post(client, body, content_type="application/json"):
    return client.generic("POST", "/api/open-body", body, content_type=content_type)


def nested(depth):
    return '{"text": ' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ('{"text": ', "not JSON"),
        ("{'text': 1}", "not JSON"),
        ('{"text": 1} x', "not JSON"),
        ("\ufeff{}", "not JSON"),
        (b'{"text": "\xff"}', "not UTF-8"),
        ('{"count": ' + "9" * 1001 + "}", "digits"),
        ('{"count": ' + "9" * 5000 + "}", "digits"),
        ('{"count": 1, "count": 2}', "“count” stands twice"),
        ('{"loras": [{"name": "a", "name": "b"}]}', "“name” stands twice"),
        (nested(51), "levels deep"),
        ("[" * 200_000, "levels deep"),
        ('{"a":' * 200_000, "levels deep"),
    ],
)
def test_refuses_what_no_request_needs(client, body, detail):
    response = post(client, body)

    assert response.status_code == 400
    problem = response.json()
    assert problem["code"] == "parse_error"
    assert detail in problem["detail"]
    assert problem["errors"] == [{"pointer": "", "code": "parse_error", "detail": problem["detail"]}]


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_lets_the_field_refuse_what_is_not_finite(client, name):
    problem = post(client, f'{{"scale": {name}}}').json()

    assert [(error["pointer"], error["code"]) for error in problem["errors"]] == [("/scale", "not_finite")]


def test_leaves_depth_that_is_bearable_to_the_fields(client):
    assert post(client, nested(50)).json()["errors"][0]["pointer"] == "/text"


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", "us-ascii", "no-such"])
def test_reads_utf8(client, charset):
    response = post(client, '{"text": "ok"}', f"application/json; charset={charset}")

    assert response.json() == {"text": "ok"}


@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "bz2_codec", "undefined"])
def test_refuses_other_encodings(client, charset):
    response = post(client, '{"text": "ok"}', f"application/json; charset={charset}")

    assert response.status_code == 415
    assert response.json()["code"] == "unsupported_media_type"


def test_reads_numbers_as_they_are_written(client):
    body = post(client, '{"count": 7, "scale": 1.5e0}').json()

    assert body == {"count": 7, "scale": 1.5}
    assert math.isfinite(body["scale"])


def test_takes_an_absent_body_for_an_empty_object(client):
    assert post(client, b"").json() == {}
