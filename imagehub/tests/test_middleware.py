import asyncio
import re

import pytest
from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient

from imagehub.context import request_id
from imagehub.middleware import RequestIdMiddleware

HEX = re.compile(r"[0-9a-f]{32}")


def request(sent=None):
    made = HttpRequest()
    if sent is not None:
        made.META["HTTP_X_REQUEST_ID"] = sent
    return made


def answer(made):
    """Answer with the id that code within the request sees."""
    return HttpResponse(request_id.get())


async def answer_later(made):
    await asyncio.sleep(0)
    return HttpResponse(request_id.get())


@pytest.mark.parametrize("sent", ["a" * 8, "a" * 64, "Az09_-Az09"])
def test_an_id_that_looks_like_one_is_kept(sent):
    response = RequestIdMiddleware(answer)(request(sent))

    assert response["X-Request-ID"] == response.text == sent


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "short77",
        "a" * 65,
        "with space",
        "new\nline1",
        "trailing1\n",
        "<script>",
        "semi;colon",
        "ünïcödé1",
        "٣" * 8,
    ],
)
def test_anything_else_is_replaced(sent):
    response = RequestIdMiddleware(answer)(request(sent))

    assert HEX.fullmatch(response["X-Request-ID"])
    assert response.text == response["X-Request-ID"]


def test_each_request_has_its_own():
    middleware = RequestIdMiddleware(answer)

    assert len({middleware(request()).text for _ in range(10)}) == 10


def test_nothing_is_left_behind():
    RequestIdMiddleware(answer)(request())

    assert request_id.get() == ""


def test_nothing_is_left_behind_by_a_failure():
    def fail(made):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        RequestIdMiddleware(fail)(request())

    assert request_id.get() == ""


class TestAsync:
    def test_is_a_coroutine_only_around_one(self):
        assert iscoroutinefunction(RequestIdMiddleware(answer_later))
        assert not iscoroutinefunction(RequestIdMiddleware(answer))

    def test_requests_at_once_do_not_mix(self):
        middleware = RequestIdMiddleware(answer_later)

        async def all_at_once():
            return await asyncio.gather(*(middleware(request(f"request-{n}")) for n in range(20)))

        responses = asyncio.run(all_at_once())

        assert [response.text for response in responses] == [f"request-{n}" for n in range(20)]
        assert all(response.text == response["X-Request-ID"] for response in responses)
        assert request_id.get() == ""

    @pytest.mark.django_db
    @pytest.mark.urls("imagehub.api.tests.urls")
    def test_a_sync_view_beneath_sees_the_id(self):
        async def ask():
            return await AsyncClient().get("/api/no-such-route", headers={"X-Request-ID": "abcdefgh-1"})

        response = asyncio.run(ask())

        assert response.json()["request_id"] == response["X-Request-ID"] == "abcdefgh-1"
