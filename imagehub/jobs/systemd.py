"""Signs of life to whoever supervises a process: systemd (units of ``Type=notify``), and probes of containers.

Where nobody asks for them these do nothing.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path


def notify(state: str) -> None:
    """Tell systemd something about this process, such as ``READY=1`` or ``STOPPING=1`` (sd_notify(3)).

    Never waits and never fails: a service does not end because nobody hears it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line, suppress(OSError):
        line.sendto(state.encode(), address)


def beat() -> None:
    """Say that this process still works: to the watchdog of systemd, and by a touch of the file ``IMAGEHUB_HEARTBEAT``.

    A probe need only look how old that file is, which costs no start of Django. Never fails, as above.
    """
    notify("WATCHDOG=1")
    if path := os.environ.get("IMAGEHUB_HEARTBEAT", ""):
        with suppress(OSError):
            Path(path).touch()
