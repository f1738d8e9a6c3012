import logging

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import RequestFactory
from django_q.models import Schedule
from django_q.tasks import async_task

from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.api.problems import ProblemResponse
from imagehub.context import at_work, hide
from imagehub.tests import canaries
from imagehub.tests.canaries import CANARY


def test_a_canary_in_a_message_is_found():
    logging.getLogger("imagehub.test").error("Failed: %s", CANARY.upper())

    [problem] = canaries.take(database=False)
    assert problem.startswith("A canary in a log line")


def test_a_canary_in_a_traceback_is_found():
    try:
        raise ValueError(CANARY)
    except ValueError:
        logging.getLogger("imagehub.test").exception("Failed")

    assert len(canaries.take(database=False)) == 1


def test_a_hidden_canary_is_not():
    with at_work():
        hide(f"a lighthouse {CANARY}")
        logging.getLogger("imagehub.test").error("Failed: a lighthouse %s", CANARY)

    assert canaries.take(database=False) == []


@pytest.mark.parametrize("line", ["hello", '"hello"', "{}\n{}", '{"a":\n1}'])
def test_a_line_that_is_not_json_is_found(line):
    assert list(canaries.problems_of_line(line))


@pytest.mark.parametrize(("status", "number"), [(200, 0), (400, 1), (500, 1)])
def test_a_canary_in_the_body_of_an_error_is_found(status, number):
    problem = ProblemResponse({"status": status, "detail": f"Not {CANARY}"})

    assert len(list(canaries.problems_of_response(problem))) == number


def test_every_answer_is_looked_at():
    handler = WSGIHandler()
    handler._middleware_chain = lambda request: HttpResponse(CANARY, status=404)
    handler.get_response(RequestFactory().get("/"))

    assert len(canaries.take(database=False)) == 1


@pytest.mark.django_db
class TestTables:
    def test_what_waits_on_the_queue_is_looked_at(self):
        async_task("imagehub.jobs.tasks.answer_doorbell", CANARY)

        assert len(canaries.take(database=True)) == 1
        self.forget("django_q.OrmQ")

    def test_schedules_are_looked_at(self):
        Schedule.objects.create(func="x", args=f"'{CANARY}'")

        assert len(canaries.take(database=True)) == 1
        self.forget("django_q.Schedule")

    def test_the_admins_log_is_looked_at(self):
        LogEntry.objects.create(user=UserFactory(), object_repr=CANARY, action_flag=1)

        assert len(canaries.take(database=True)) == 1
        self.forget("admin.LogEntry")

    def test_the_audit_trail_is_looked_at(self):
        AuditEntry.objects.create(action="x", via="system", after={"name": ["a", CANARY]})

        assert len(canaries.take(database=True)) == 1
        self.forget("accounts.AuditEntry")

    def forget(self, label):
        rows = apps.get_model(label)._base_manager.all()
        rows._raw_delete(rows.db)
