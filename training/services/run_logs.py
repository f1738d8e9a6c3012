"""The end of what the program of a run printed. Colours, overwritten lines and secrets were taken out when it was written."""

from training.models import TrainingRun
from training.services.run_folders import folder_of

MOST_BYTES = 512 * 1024
"""So much of a log is read from its end, however many lines are asked for."""


def tail(run: TrainingRun, *, lines: int) -> list[str]:
    """Return the last lines; none where nothing was printed, or its files are gone."""
    log = folder_of(run).log
    text = b""
    for path in (log, log.with_name(f"{log.name}.1")):  # the second has how it began
        if text.count(b"\n") >= lines or len(text) >= MOST_BYTES or not path.is_file():
            continue
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - (MOST_BYTES - len(text))))
            text = file.read() + text
    found = text.decode("utf-8", "replace").splitlines()
    return found[-lines:]
