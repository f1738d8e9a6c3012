from albums.services.purging import PURGE
from imagehub.operations.purge_command import PurgeCommand


class Command(PurgeCommand):
    help = (
        "Delete images for good that have been in the trash for some time, with the files that no other image has. Images that "
        "something needs stay."
    )
    kind = PURGE
