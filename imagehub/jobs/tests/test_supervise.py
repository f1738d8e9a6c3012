"""What ``supervise`` says before it starts anything."""

import socket

import pytest
from django.core.management import CommandError, call_command
from django.db.migrations.recorder import MigrationRecorder

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
