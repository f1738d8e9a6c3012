"""What callers are told of addresses that are not fetched."""

import pytest

from imagehub.api.problems import of_ours
from imagehub.egress.policy import BlockedAddress, FetchFailed, Policy
from imagehub.egress.urls import vet_url


def test_callers_of_the_api_learn_which_field_is_refused(rf):
    with pytest.raises(BlockedAddress) as caught:
        vet_url("http://10.0.0.1/", Policy(), pointer="/urls/3")
    answer = of_ours(caught.value, rf.post("/api/scraping/start"))

    assert (answer.status_code, answer.data["code"]) == (400, "blocked_address")
    assert answer.data["errors"][0]["pointer"] == "/urls/3"


def test_callers_of_the_api_do_not_learn_how_a_fetch_failed(rf):
    bodies = [
        of_ours(FetchFailed(reason), rf.get("/api/images")).content for reason in ("unreachable", "timeout")
    ]

    assert bodies[0] == bodies[1]
    assert b"fetch_failed" in bodies[0]
