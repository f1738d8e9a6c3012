from collections.abc import Iterator

from training.management.scanning import ScanCommand
from training.services import Outcome, scan_adapters


class Command(ScanCommand):
    help = (
        "Register the LoRA adapters that lie below the folder “loras” of the models root, and disable those whose file has "
        "gone. What is there as it was is not read again, so this can be repeated at any time. Exits with 1 if a file was "
        "refused."
    )

    def scan(self, *, dry_run: bool) -> Iterator[Outcome]:
        return scan_adapters(dry_run=dry_run)
