import os
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from imagehub.config import get_config
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.registry import kinds
from imagehub.jobs.supervisor import Service, Supervisor, port_is_free


class Command(BaseCommand):
    help = "Run the web server and the clusters on this machine until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="Address to listen on (default: 127.0.0.1).")
        parser.add_argument(
            "--port",
            type=int,
            default=int(os.environ.get("PORT") or 8000),
            help="Port to listen on (default: PORT, or 8000).",
        )
        parser.add_argument(
            "--grace",
            type=float,
            help="Seconds to wait for services to end (default: the longest grace time of a child program and 20 more).",
        )

    def handle(self, *, host: str, port: int, grace: float | None, **options: Any) -> None:
        if not port_is_free(host, port):
            raise CommandError(f"Port {port} is taken. Choose another with --port or PORT.")
        if has_unapplied_migrations():
            raise CommandError("The database is not up to date. Run: manage.py migrate")
        in_use = {Cluster.DEFAULT} | {kind.cluster for kind in kinds()}
        services = [web_service(host, port), *(cluster_service(name) for name in Cluster if name in in_use)]
        Supervisor(services, grace_seconds=grace or _longest_grace() + 20).run()


def _longest_grace() -> int:
    """Return how long a child program may take to end: most waiting is for a training that saves what it has learned."""
    config = get_config()
    return max(section.grace_seconds for section in (config.engine, config.training, config.labeling))


def has_unapplied_migrations() -> bool:
    """Tell whether the code knows migrations that the database has not seen."""
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def web_service(host: str, port: int) -> Service:
    """The web server. See ``imagehub/asgi.py`` for what it runs and why."""
    argv = [sys.executable, "-m", "uvicorn", "imagehub.asgi:application", "--host", host, "--port", str(port)]
    argv += ["--no-access-log", "--no-server-header", "--timeout-graceful-shutdown", "5"]
    # Whom to believe about a client's address is decided once, in imagehub/client_address.py.
    argv += ["--no-proxy-headers"]
    # Until Django sets logs up, and in a parent of several processes, the server writes through our formatter too.
    argv += ["--log-config", str(settings.BASE_DIR / "imagehub" / "uvicorn_logging.json")]
    return Service("web", argv)


def cluster_service(cluster: Cluster) -> Service:
    """One cluster of workers, watched through its presence row."""
    manage = str(settings.BASE_DIR / "manage.py")
    return Service(
        f"cluster {cluster}",
        [sys.executable, manage, "qcluster", cluster.value],
        env={"Q_CLUSTER_NAME": cluster.value},
        cluster=cluster.value,
    )
