"""What operators are told: a real server on loopback takes the webhook, and Django's own outbox the mail."""

import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.core import mail
from django.db import transaction

from imagehub.operations import disk, notify
from imagehub.operations.models import Notice
from imagehub.tests.together import at_once

pytestmark = pytest.mark.django_db

SECRET = "T0P-5ECRET-HOOK"


class Hook(ThreadingHTTPServer):
    """Takes what is posted, and answers as it is told."""

    def __init__(self):
        self.status, self.taken = 200, []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.taken.append((self.path, self.headers["Content-Type"], json.loads(body)))
                self.send_response(hook.status)
                self.send_header("Content-Length", "0")
                self.send_header("Location", f"http://127.0.0.1:{hook.server_port}/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def hook(settings):
    hook = Hook()
    settings.ALERT_WEBHOOK = f"http://127.0.0.1:{hook.server_port}/services/{SECRET}"
    settings.ALERT_WEBHOOK_IS_PRIVATE = True
    yield hook
    hook.shutdown()
    hook.server_close()


def announce():
    notify.announce("disk.alert", "The disk of box is full.", {"host": "box", "percent": 91.0})
    return Notice.objects.latest("created_at")


def later(**values):
    """Let so much time pass."""
    since = timedelta(**values)
    for notice in Notice.objects.all():
        Notice.objects.filter(pk=notice.pk).update(
            created_at=notice.created_at - since, next_try_at=notice.next_try_at - since
        )


def test_without_a_way_nobody_is_told():
    notify.announce("disk.alert", "The disk is full.", {})

    assert not Notice.objects.exists()
    assert notify.deliver_waiting() == 0


def test_a_webhook_is_posted_once(hook):
    notice = announce()

    assert [notify.deliver_waiting(), notify.deliver_waiting()] == [1, 0]

    ((path, content_type, body),) = hook.taken
    assert (path, content_type) == (f"/services/{SECRET}", "application/json")
    assert body == {
        "id": str(notice.pk),
        "name": "disk.alert",
        "text": "The disk of box is full.",
        "facts": {"host": "box", "percent": 91.0},
        "at": notice.created_at.isoformat(),
    }


def test_mail_goes_to_all(settings):
    settings.ALERT_EMAILS = ["ada@example.net", "ops@example.net"]
    announce()

    assert [notify.deliver_waiting(), notify.deliver_waiting()] == [1, 0]

    (sent,) = mail.outbox
    assert sent.to == ["ada@example.net", "ops@example.net"]
    assert sent.subject == "ImageHub: The disk of box is full."
    assert "percent: 91.0" in sent.body


@pytest.mark.parametrize(("status", "reason"), [(500, "status_500"), (302, "status_302")])
def test_what_does_not_arrive_is_tried_again_and_says_nothing_of_the_address(hook, caplog, status, reason):
    hook.status = status
    announce()
    announce()

    assert notify.deliver_waiting() == 0
    assert len(hook.taken) == 1  # the other one would have fared no better
    assert set(Notice.objects.values_list("tries", "failure")) == {(1, reason), (0, "")}
    assert SECRET not in caplog.text
    assert str(hook.server_port) not in caplog.text

    hook.status = 204
    later(minutes=5)
    assert notify.deliver_waiting() == 2
    assert len(hook.taken) == 3
    assert set(Notice.objects.values_list("failure", flat=True)) == {""}


def test_a_mail_server_that_is_away_is_no_error(settings, caplog):
    settings.ALERT_EMAILS = ["ada@example.net"]
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    announce()

    disk.look(is_sample_due=False)

    assert Notice.objects.get().failure == "ConnectionRefusedError"
    assert "ada@example.net" not in caplog.text


def test_what_cannot_be_sent_at_all_holds_up_nothing_else(settings, caplog):
    settings.ALERT_EMAILS = ["ada@example.net"]
    notify.announce("disk.alert", "The disk of box\nBcc: all@example.net is full.", {})
    announce()

    assert notify.deliver_waiting() == 1

    assert Notice.objects.order_by("created_at").first().failure == "BadHeaderError"
    assert "all@example.net" not in caplog.text


def test_an_address_that_makes_no_sense_keeps_no_disk_from_being_looked_at(settings, caplog):
    settings.ALERT_WEBHOOK = f"https://example.net:many/{SECRET}"
    announce()

    assert disk.look(is_sample_due=True) is not None

    assert Notice.objects.latest("created_at").failure == "ValueError"
    assert SECRET not in caplog.text


def test_one_way_does_not_wait_for_the_other(hook, settings):
    settings.ALERT_EMAILS = ["ada@example.net"]
    hook.status = 500
    announce()

    assert notify.deliver_waiting() == 1
    assert len(mail.outbox) == 1


def test_a_private_address_is_reached_only_where_the_environment_says_so(hook, settings):
    settings.ALERT_WEBHOOK_IS_PRIVATE = False
    announce()

    assert notify.deliver_waiting() == 0

    assert hook.taken == []
    assert Notice.objects.get().failure == "blocked_address"


def test_what_is_no_news_any_more_is_not_told(hook):
    announce()
    later(days=3)

    assert notify.deliver_waiting() == 0

    later(days=30)
    notify.forget_old()
    assert not Notice.objects.exists()


def test_what_was_rolled_back_is_not_told(hook):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        announce()
        1 / 0  # noqa: B018

    assert notify.deliver_waiting() == 0


@pytest.mark.django_db(transaction=True)
def test_of_many_who_deliver_one_does(hook):
    for _ in range(5):
        announce()

    arrived = at_once(lambda _: notify.deliver_waiting(), range(4))

    assert sum(arrived) == 5
    assert len({body["id"] for _, _, body in hook.taken}) == len(hook.taken) == 5
