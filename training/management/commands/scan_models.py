from collections.abc import Iterator

from training.management.scanning import ScanCommand
from training.services import Outcome, scan_base_models


class Command(ScanCommand):
    help = (
        "Register the base models that lie under the models root: folders in the layout of diffusers, and single "
        ".safetensors files. Those that have a row are left as they are. Exits with 1 if a file was refused."
    )

    def scan(self, *, dry_run: bool) -> Iterator[Outcome]:
        return scan_base_models(dry_run=dry_run)
