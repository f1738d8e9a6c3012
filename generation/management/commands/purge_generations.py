from generation.services.purging import PURGE
from imagehub.operations.purge_command import PurgeCommand


class Command(PurgeCommand):
    help = (
        "Delete the rows of generation jobs that ended some time ago and of which no picture is left, with their previews and "
        "tracebacks. Jobs stay that a picture comes from, be it in the trash."
    )
    kind = PURGE
