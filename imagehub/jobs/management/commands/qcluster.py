import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django_q.conf import Conf

from imagehub.jobs.cluster import run_cluster
from imagehub.jobs.clusters import Cluster


class Command(BaseCommand):
    help = "Run one cluster of workers. Takes the place of Django-Q's own command of this name."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "cluster",
            nargs="?",
            choices=[cluster.value for cluster in Cluster],
            default=os.environ.get("Q_CLUSTER_NAME", Cluster.DEFAULT.value),
            help="Which cluster to run (default: Q_CLUSTER_NAME, or 'default').",
        )

    def handle(self, *, cluster: str, **options: Any) -> None:
        if cluster != Conf.CLUSTER_NAME:
            # Django-Q has read its settings already, for the name in the environment: start over with the right one.
            os.environ["Q_CLUSTER_NAME"] = cluster
            os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - this very program
        run_cluster(Cluster(cluster))
