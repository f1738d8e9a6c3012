import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.utils.translation import gettext_lazy
from rest_framework.renderers import JSONRenderer as RestFrameworkJSONRenderer
from rest_framework.utils.serializer_helpers import ReturnDict, ReturnList

from imagehub.api.renderers import JSONRenderer
from imagehub.jobs.models import JobStatus


@pytest.mark.parametrize(
    "data",
    [
        {"a": [1, 2.5, True, None, "ß ♥"]},
        {"id": uuid.UUID(int=7), "at": datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)},
        {"at": datetime(2026, 1, 2, tzinfo=UTC), "price": Decimal("1.10"), "label": gettext_lazy("Home")},
        {"status": JobStatus.QUEUED, "seen": {1: "one"}, "seed": 2**63 - 1, "beyond": 2**70},
        ReturnList([ReturnDict({"x": 1}, serializer=None)], serializer=None),
    ],
)
def test_writes_what_drf_would_write(data):
    assert json.loads(JSONRenderer().render(data)) == json.loads(RestFrameworkJSONRenderer().render(data))


def test_nothing_is_an_empty_body_and_indents_are_kept():
    assert JSONRenderer().render(None) == b""
    assert b"\n  " in JSONRenderer().render({"a": 1}, "application/json; indent=2")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda number: {"a": [{"eta": number}]},
        lambda number: {"name": "nothing is null", "eta": (number,)},
        lambda number: {"gone": None, "eta": {number: 1, "b": number}},
        lambda number: {"found": Found([number])},
    ],
)
def test_a_number_that_is_not_finite_is_refused_and_not_made_null(number, wrap):
    with pytest.raises(ValueError, match="not JSON compliant"):
        JSONRenderer().render(wrap(number))


class Found:
    """What DRF writes as a list and orjson does not know, as a queryset is."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def test_what_can_be_read_only_once_is_whole_beside_what_orjson_refuses():
    data = {"first": (number for number in range(3)), "seed": 2**70, "then": map(str, range(2))}

    assert json.loads(JSONRenderer().render(data)) == {"first": [0, 1, 2], "seed": 2**70, "then": ["0", "1"]}
