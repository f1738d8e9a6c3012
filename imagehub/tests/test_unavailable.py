"""Which errors of a database are its own trouble, and which are bugs of ours."""

import sqlite3
from pathlib import Path

import psycopg
import pytest
from django.db import InterfaceError, OperationalError, ProgrammingError, connection, transaction
from django.db.backends.utils import CursorWrapper
from django.test import Client
from rest_framework.test import APIClient

from imagehub.api import problems
from imagehub.database import is_unavailable
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.queue import is_ringing, ring


def as_django_tells(cause: Exception) -> OperationalError:
    error = OperationalError(*cause.args)
    error.__cause__ = cause
    return error


@pytest.mark.once
class TestSQLite:
    def test_one_that_others_hold_is_unavailable(self, tmp_path: Path):
        path = tmp_path / "held.sqlite3"
        with sqlite3.connect(path) as holder, sqlite3.connect(path, timeout=0) as other:
            holder.execute("BEGIN EXCLUSIVE")
            with pytest.raises(sqlite3.OperationalError) as raised:
                other.execute("BEGIN IMMEDIATE")

        assert is_unavailable(as_django_tells(raised.value))

    def test_one_that_cannot_be_opened_is_unavailable(self, tmp_path: Path):
        with pytest.raises(sqlite3.OperationalError) as raised:
            sqlite3.connect(tmp_path / "no" / "such" / "folder")

        assert is_unavailable(as_django_tells(raised.value))

    def test_one_that_may_not_be_written_waits_for_its_operator(self, tmp_path: Path):
        path = tmp_path / "kept.sqlite3"
        sqlite3.connect(path).execute("CREATE TABLE things (name)")
        with pytest.raises(sqlite3.OperationalError) as raised:
            sqlite3.connect(f"file:{path}?mode=ro", uri=True).execute("INSERT INTO things VALUES (1)")

        assert not is_unavailable(as_django_tells(raised.value))

    def test_a_table_that_is_missing_is_a_bug(self):
        with pytest.raises(sqlite3.OperationalError) as raised:
            sqlite3.connect(":memory:").execute("SELECT * FROM missing")

        assert not is_unavailable(as_django_tells(raised.value))


class TestPostgreSQL:
    @pytest.mark.once
    def test_one_that_nobody_serves_is_unavailable(self):
        with pytest.raises(psycopg.OperationalError) as raised:
            psycopg.connect("postgres://127.0.0.1:1/none", connect_timeout=2)

        assert is_unavailable(as_django_tells(raised.value))

    @pytest.mark.once
    @pytest.mark.parametrize(
        ("error", "is_passing"),
        [
            (psycopg.errors.AdminShutdown(), True),
            (psycopg.errors.CannotConnectNow(), True),
            (psycopg.errors.DiskFull(), True),
            (psycopg.errors.DeadlockDetected(), True),
            (psycopg.errors.StatementTooComplex(), False),
        ],
    )
    def test_its_state_says_whose_fault_it_is(self, error, is_passing):
        assert is_unavailable(as_django_tells(error)) is is_passing

    @pytest.mark.django_db(transaction=True)
    def test_a_request_whose_connection_is_cut_off_is_told_to_come_again(self):
        if connection.vendor != "postgresql":
            pytest.skip("SQLite has no connections that could be cut")
        client = Client(raise_request_exception=False)

        def cut(execute, sql, params, many, context):
            with psycopg.connect(**connection.get_connection_params()) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [pid])
            return execute(sql, params, many, context)

        pid = connection.cursor().execute("SELECT pg_backend_pid()").fetchone()[0]
        with connection.execute_wrapper(cut):
            response = client.get("/api/images")
        connection.close()

        assert (response.status_code, response["Retry-After"]) == (503, "5")
        assert client.get("/api/images").status_code == 200


@pytest.mark.once
def test_a_wrong_statement_is_a_bug_and_so_is_a_wrong_use_of_a_cursor():
    assert not is_unavailable(ProgrammingError("syntax error"))
    assert not is_unavailable(InterfaceError("the cursor is closed"))
    assert is_unavailable(InterfaceError("connection already closed"))


@pytest.mark.django_db
def test_where_it_happened_is_logged_once_a_minute(monkeypatch, caplog):
    def away(*_, **__):
        raise OperationalError("gone")

    monkeypatch.setattr(problems, "_traced_at", None)
    monkeypatch.setattr(CursorWrapper, "execute", away)
    client = APIClient(raise_request_exception=False)

    assert [client.get("/api/images").status_code for _ in range(3)] == [503] * 3

    lines = [record for record in caplog.records if record.name == problems.__name__]
    assert [record.exc_info is not None for record in lines] == [True, False, False]


@pytest.mark.django_db(transaction=True)
def test_what_was_committed_does_not_fail_for_want_of_its_doorbell(monkeypatch):
    def away(*_, **__):
        raise OperationalError("gone")

    monkeypatch.setattr("imagehub.jobs.queue.async_task", away)
    with transaction.atomic():
        ring(Cluster.DEFAULT)

    assert not is_ringing(Cluster.DEFAULT)
