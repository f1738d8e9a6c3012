"""What ``supervise`` says before it starts anything, and how patiently it starts again."""

import socket
import sys
import time

import pytest
from django.core.management import CommandError, call_command
from django.db.migrations.recorder import MigrationRecorder

from imagehub.jobs.supervisor import Service, Supervisor

pytestmark = pytest.mark.django_db


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(CommandError, match=f"Port {port} is taken"):
            call_command("supervise", "--port", str(port))


def test_a_database_that_is_not_up_to_date_is_named():
    MigrationRecorder.Migration.objects.filter(app="generation").delete()

    with pytest.raises(CommandError, match="migrate"):
        call_command("supervise", "--port", "0")


class TestRestart:
    @pytest.fixture
    def starts(self, monkeypatch):
        """Count how often services are started."""
        started, real = [], Service.start
        monkeypatch.setattr(Service, "start", lambda service: started.append(service.name) or real(service))
        return started

    def tend(self, service: Service, *, seconds: float) -> None:
        supervisor = Supervisor([service], grace_seconds=1)
        supervisor._next_check = float("inf")  # services alone, without a look at the database
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            supervisor._tend()
            time.sleep(0.05)
        supervisor._take_down()

    def test_a_service_that_ends_at_once_is_started_ever_more_slowly(self, starts):
        self.tend(Service("hasty", [sys.executable, "-c", ""]), seconds=3)

        assert len(starts) == 2  # at once, and after 1 s; the next would follow after 3 s more

    def test_a_service_that_runs_is_left_alone(self, starts):
        service = Service("steady", [sys.executable, "-c", "import time; time.sleep(60)"])

        self.tend(service, seconds=1)

        assert len(starts) == 1
        assert service.has_ended()

    def test_a_program_that_cannot_be_started_does_not_take_the_others_down(self, starts):
        self.tend(Service("missing", ["/no/such/program"]), seconds=0.5)

        assert len(starts) == 1
