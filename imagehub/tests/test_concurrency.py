"""Slots: as many as there are, given back at the end, and never kept by the dead."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.conf import settings
from django.core.cache import caches

from imagehub import concurrency
from imagehub.concurrency import ConcurrencyLimit, hold_slot

pytestmark = pytest.mark.cache


def test_of_many_at_once_exactly_as_many_hold_one_as_may():
    started, decided = Barrier(20), Barrier(20)

    def try_to_hold(_: int) -> bool:
        started.wait()
        try:
            with hold_slot("upload", 3, 60):
                decided.wait()
        except ConcurrencyLimit:
            decided.wait()
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(try_to_hold, range(20))) == 3
    with hold_slot("upload", 1, 60):
        pass


def test_a_slot_is_free_again_when_the_block_ends_however_it_ends():
    for _ in range(3):
        with pytest.raises(RuntimeError), hold_slot("upload", 1, 60):
            raise RuntimeError

    with (
        hold_slot("upload", 1, 60),
        hold_slot("other", 1, 60),
        pytest.raises(ConcurrencyLimit) as refusal,
        hold_slot("upload", 1, 60),
    ):
        pass
    assert (refusal.value.code, refusal.value.limit, refusal.value.retry_after) == (
        "concurrency_limit",
        1,
        10,
    )


def test_a_slot_whose_holder_was_killed_ends_by_itself():
    killed = hold_slot("upload", 1, 1)
    killed.__enter__()
    with pytest.raises(ConcurrencyLimit), hold_slot("upload", 1, 60):
        pass

    time.sleep(1.1)
    with hold_slot("upload", 1, 60):
        pass


def test_only_ones_own_slot_is_released():
    cache = caches[settings.RATELIMIT_USE_CACHE]
    [slot] = concurrency._slots("upload", 1)

    with hold_slot("upload", 1, 60):
        cache.set(slot, "somebody else's", 60)  # ours had ended
    assert cache.get(slot) == "somebody else's"


def test_a_slot_near_its_end_is_left_to_end_by_itself():
    with hold_slot("upload", 1, 1):  # another may hold it between our look and our release
        pass

    with pytest.raises(ConcurrencyLimit), hold_slot("upload", 1, 60):
        pass


@pytest.mark.parametrize("limit", [0, -1])
def test_zero_or_less_is_no_limit(limit):
    with hold_slot("upload", limit, 60), hold_slot("upload", limit, 60):
        pass
