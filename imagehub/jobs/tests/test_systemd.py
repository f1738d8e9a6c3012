"""What systemd and other supervisors are told of a cluster."""

import os
import socket
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import WorkerPresence
from imagehub.jobs.systemd import notify


@pytest.mark.once
@pytest.mark.parametrize("address", ["{folder}/line", "@imagehub-{pid}"], ids=["path", "abstract"])
def test_systemd_hears_what_it_is_told(address, tmp_path, monkeypatch):
    address = address.format(folder=tmp_path, pid=os.getpid())
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(address.replace("@", "\0"))
        notify("READY=1")

        assert line.recv(100) == b"READY=1"


@pytest.mark.once
@pytest.mark.parametrize("address", ["", "/no/such/place"])
def test_nobody_needs_to_listen(address, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", address)

    notify("WATCHDOG=1")


@pytest.mark.django_db
class TestCheckCluster:
    def check(self) -> str:
        said = StringIO()
        call_command("check_cluster", "scraping", stdout=said, stderr=said)
        return said.getvalue()

    def test_a_cluster_of_this_machine_that_answers_is_well(self):
        presence.announce(Cluster.SCRAPING)

        assert "works" in self.check()

    def test_one_that_is_silent_of_another_machine_or_of_another_name_is_none(self):
        presence.announce(Cluster.DEFAULT)
        WorkerPresence.objects.create(cluster="scraping", host="elsewhere", pid=1)
        row = presence.announce(Cluster.SCRAPING)
        WorkerPresence.objects.filter(pk=row.pk).update(seen_at=timezone.now() - 2 * presence.STALE)

        with pytest.raises(CommandError, match="No cluster scraping of this machine"):
            self.check()

    def test_while_the_database_is_away_nothing_is_started_anew(self, monkeypatch):
        def fail(*args, **kwargs):
            raise OperationalError

        monkeypatch.setattr(presence, "live", fail)

        assert "nothing is known" in self.check()
