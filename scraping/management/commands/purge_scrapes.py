from imagehub.operations.purge_command import PurgeCommand
from scraping.services.purging import PURGE


class Command(PurgeCommand):
    help = (
        "Delete what is left of crawls that ended some time ago: fetched files, logs, and the addresses that led to no image. "
        "Where images are from stays known, and the crawls themselves stay."
    )
    kind = PURGE
