"""A turn that somebody holds too long stops nobody for ever."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import Error, connection, connections, transaction

from imagehub.database import take_turn
from imagehub.errors import StillBusy
from imagehub.jobs.registry import get_kind, register
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor != "postgresql", reason="SQLite has one writer, and 20 s of patience"
    ),
]


@contextmanager
def held(name, *, first="SELECT 1"):
    """Let another connection hold a turn; it runs a statement first. What ended it is raised in the end."""
    has_it, is_over = threading.Event(), threading.Event()

    def hold():
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute(first)
                take_turn(name, using="default")
                has_it.set()
                is_over.wait(10)
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        assert has_it.wait(10)
        try:
            yield
        finally:
            is_over.set()
            holding.result()


def test_waiting_for_one_ends():
    with held("a"):
        started = time.monotonic()
        with pytest.raises(StillBusy, match="Try again"), transaction.atomic():
            take_turn("a", using="default", wait_seconds=0.3)
        assert 0.3 <= time.monotonic() - started < 3

    with transaction.atomic():
        take_turn("a", using="default", wait_seconds=0.3)


def test_whoever_has_one_waits_for_other_locks_as_ever():
    def patience():
        with connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            return cursor.fetchone()

    before = patience()
    with transaction.atomic():
        take_turn("a", using="default", wait_seconds=0.3)

        assert patience() == before


def test_a_claim_that_hangs_lets_others_come_again_later():
    kind = get_kind("errand")
    register(dataclasses.replace(kind, affinity="behaviour"))
    job = ErrandFactory()
    try:
        with held(f"claims of {Errand._meta.label_lower}"):
            started = time.monotonic()
            assert Errand.objects.claim(worker="w") is None
            assert time.monotonic() - started < 5

        assert Errand.objects.claim(worker="w").pk == job.pk
    finally:
        register(kind)


def test_who_hangs_in_a_transaction_loses_it():
    with connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("1min",)

    hanging = "SET idle_in_transaction_session_timeout = '300ms'"
    with pytest.raises(Error, match="idle-in-transaction"), held("a", first=hanging), transaction.atomic():
        take_turn("a", using="default", wait_seconds=5)
