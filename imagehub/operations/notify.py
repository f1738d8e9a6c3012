"""Telling operators that something needs them: by a webhook and by e-mail, where these are set up.

What is to be told becomes a row for each way, in the transaction that finds it out; the next look sends it. So nothing is told of what
was rolled back, nothing is lost while a mail server is away, and whoever finds something out waits for nobody.
"""

import json
import smtplib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.db.models import F
from django.utils import timezone

from imagehub.egress.client import Limits, open_url
from imagehub.egress.policy import BlockedAddress, FetchFailed, Policy
from imagehub.operations.models import Notice

logger = structlog.stdlib.get_logger(__name__)

RETRY = timedelta(minutes=4)
"""Before somebody tries again. A look comes each five minutes."""

GIVE_UP = timedelta(days=2)
"""After that an alert is no news."""

REMEMBERED = timedelta(days=30)

LIMITS = Limits(silence_seconds=10, total_seconds=20, body_bytes=64 * 1024, redirects=0)


class NotDelivered(Exception):
    """What was to be told did not arrive. The text is one word for the log: nothing of the address."""


def announce(name: str, sentence: str, facts: Mapping[str, Any]) -> None:
    """Let operators be told of an alert, by each way that is set up.

    Args:
        name: what kind of alert it is, such as ``disk.alert``.
        sentence: what has happened, for people. Neither it nor the facts name a path or a secret.
        facts: the same for programs.
    """
    notices = [
        Notice(channel=channel, name=name, sentence=sentence, facts=dict(facts)) for channel in channels()
    ]
    Notice.objects.bulk_create(notices)


def channels() -> list[str]:
    """Return the ways that are set up."""
    found = [Notice.Channel.WEBHOOK.value] if settings.ALERT_WEBHOOK else []
    return found + ([Notice.Channel.EMAIL.value] if settings.ALERT_EMAILS else [])


def deliver_waiting() -> int:
    """Send what waits, the oldest first; return how much arrived.

    Of two who do it at once each sends what the other does not. A way on which one notice got lost is left alone until the next
    time; one that cannot be made at all holds up nothing else. A process that dies between sending and noting that has told it
    twice: the ``id`` is the same then.
    """
    arrived = 0
    for channel in channels():
        for notice in _waiting().filter(channel=channel).order_by("created_at", "id")[:100]:
            claimed = (
                _waiting()
                .filter(pk=notice.pk)
                .update(tries=F("tries") + 1, next_try_at=timezone.now() + RETRY)
            )
            if not claimed:
                continue
            try:
                SENDERS[notice.channel](notice)
            except NotDelivered as error:
                _note(notice, str(error))
                break
            except Exception as error:  # noqa: BLE001 - a header or an address that makes no sense; its text may name it
                _note(notice, type(error).__name__)
                continue
            Notice.objects.filter(pk=notice.pk).update(sent_at=timezone.now(), failure="")
            arrived += 1
    return arrived


def forget_old() -> None:
    """Delete what was told long ago, and what could not be."""
    Notice.objects.filter(created_at__lt=timezone.now() - REMEMBERED).delete()


def _note(notice: Notice, reason: str) -> None:
    Notice.objects.filter(pk=notice.pk).update(failure=reason[:60])
    logger.warning("notice.not_delivered", channel=notice.channel, alert=notice.name, reason=reason)


def _waiting() -> Any:
    now = timezone.now()
    return Notice.objects.filter(sent_at=None, next_try_at__lte=now, created_at__gt=now - GIVE_UP)


def _post(notice: Notice) -> None:
    body = {
        "id": str(notice.pk),
        "name": notice.name,
        "text": notice.sentence,
        "facts": notice.facts,
        "at": notice.created_at.isoformat(),
    }
    try:
        with open_url(
            settings.ALERT_WEBHOOK,
            policy=_policy(),
            method="POST",
            headers={"Content-Type": "application/json"},
            content=json.dumps(body).encode(),
            limits=LIMITS,
        ) as answer:
            if not 200 <= answer.status < 300:
                raise NotDelivered(f"status_{answer.status}")
    except FetchFailed as error:
        raise NotDelivered(error.reason) from None
    except BlockedAddress:
        raise NotDelivered("blocked_address") from None


def _policy() -> Policy:
    """Return what the guard lets the webhook reach: its own port, and a private address only where the environment says so."""
    parts = urlsplit(settings.ALERT_WEBHOOK)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = parts.hostname or ""
    own = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Policy.read(
        allow_private=[own] if settings.ALERT_WEBHOOK_IS_PRIVATE else [],
        own_hosts=settings.ALLOWED_HOSTS,
        ports=[port],
    )


def _mail(notice: Notice) -> None:
    facts = "\n".join(f"{name}: {value}" for name, value in notice.facts.items())
    message = EmailMessage(
        subject=f"ImageHub: {notice.sentence}"[:200],
        body=f"{notice.sentence}\n\n{facts}\n\n{notice.name}, {notice.created_at:%Y-%m-%d %H:%M} UTC\n",
        to=settings.ALERT_EMAILS,
        headers={"Message-ID": f"<{notice.pk}@imagehub.invalid>"},
    )
    try:
        message.send()
    except (smtplib.SMTPException, OSError) as error:  # their texts name servers and people
        raise NotDelivered(type(error).__name__) from None


SENDERS: dict[str, Callable[[Notice], None]] = {
    Notice.Channel.WEBHOOK.value: _post,
    Notice.Channel.EMAIL.value: _mail,
}
