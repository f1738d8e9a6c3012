import socket
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError

from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster


class Command(BaseCommand):
    help = "Tell whether a cluster of this machine works: exits with 1 where its workers have not answered lately."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("cluster", choices=[cluster.value for cluster in Cluster])

    def handle(self, *, cluster: str, **options: Any) -> None:
        try:
            works = presence.live(Cluster(cluster)).filter(host=socket.gethostname()).exists()
        except DatabaseError:
            # Nobody can answer then, and a cluster that is started anew would be no better off.
            self.stderr.write("The database does not answer, so nothing is known.")
            return
        if not works:
            raise CommandError(
                f"No cluster {cluster} of this machine has answered for {presence.STALE.seconds} s."
            )
        self.stdout.write(self.style.SUCCESS(f"The cluster {cluster} works."))
