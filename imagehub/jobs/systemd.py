"""Signs of life to systemd, for units of ``Type=notify``. Where systemd does not ask for them these do nothing."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Tell systemd something about this process, such as ``READY=1`` or ``WATCHDOG=1`` (sd_notify(3)).

    Never waits and never fails: a service does not end because nobody hears it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line, suppress(OSError):
        line.sendto(state.encode(), address)
