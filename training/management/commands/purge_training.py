from imagehub.operations.models import Purge
from imagehub.operations.purge_command import PurgeCommand
from training.services.purging import PURGE


class Command(PurgeCommand):
    help = (
        "Delete the files of training runs that ended some time ago: pictures, checkpoints, samples, logs, and (without "
        "--limit) what nobody used of the cache. Checkpoints stay that are pinned, the best of their run, or about to "
        "become an adapter."
    )
    kind = PURGE

    def tell(self, purge: Purge) -> None:
        for kept in purge.result["kept"]:
            steps = ", ".join(map(str, kept["steps"]))
            self.stdout.write(f"{kept['run']}  keeps the checkpoints of step {steps}")
        super().tell(purge)
