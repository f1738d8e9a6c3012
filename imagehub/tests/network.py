"""Machines on this machine: network namespaces with names and addresses of their own, whose cables can be pulled."""

import os
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

NETWORK = "198.18.77"
"""Of the range for tests between networks (RFC 2544): nobody's, and nothing is routed there."""

PIECE_BYTES = 65536


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def is_possible() -> bool:
    """Tell whether this process may make network namespaces, by making one."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"ih{os.getpid()}"
    try:
        ip("netns", "add", name)
        ip("netns", "delete", name)
    except subprocess.SubprocessError:
        return False
    return True


class Machine:
    """Something with a name, an address, processes and a cable."""

    def __init__(self, network: str, number: int, name: str) -> None:
        self.name = name
        self.address = f"{NETWORK}.{number}"
        self._space = f"{network}{name}"
        self._cable = f"{network}{number}"
        self._processes: list[subprocess.Popen[bytes]] = []
        ip("netns", "add", self._space)
        ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._space)
        ip("link", "set", self._cable, "master", network, "up")
        ip("-n", self._space, "address", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self._space, "link", "set", "eth0", "up")
        ip("-n", self._space, "link", "set", "lo", "up")

    def start(self, argv: Sequence[str], env: dict[str, str]) -> None:
        """Run a program that thinks this is its machine."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        self._processes.append(
            subprocess.Popen(
                ["ip", "netns", "exec", self._space, *named, *argv], env=env, start_new_session=True
            )
        )

    def cut_off(self) -> None:
        """Pull the cable: nothing comes through any more, and nobody is told."""
        ip("link", "set", self._cable, "down")

    def connect(self) -> None:
        """Put the cable back."""
        ip("link", "set", self._cable, "up")

    def kill(self) -> None:
        """Take the power away: every process ends at once."""
        while pids := self._pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self._processes:
                process.wait()
        self._processes.clear()

    def remove(self) -> None:
        self.kill()
        ip("netns", "delete", self._space)  # its end of the cable goes with it, and with that the other

    def _pids(self) -> list[int]:
        """Return its processes; those that have ended and wait to be reaped have no namespace any more."""
        told = subprocess.run(
            ["ip", "netns", "pids", self._space], check=True, capture_output=True, text=True, timeout=30
        )
        return [int(pid) for pid in told.stdout.split()]


class _Passage(socketserver.BaseRequestHandler):
    server: "Relay"

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as other:
            back = threading.Thread(target=_pump, args=(other, self.request), daemon=True)
            back.start()
            _pump(self.request, other)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Relay(socketserver.ThreadingTCPServer):
    """A server of this machine's loopback, reached from the network. It does not notice a pulled cable, as a server would not."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__((f"{NETWORK}.1", 0), _Passage)
        self.target = target
        self._passages: list[socket.socket] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        self._passages.append(request)
        super().process_request(request, client_address)

    def remove(self) -> None:
        """Close every passage: what was cut off would otherwise hold on to the servers for ever."""
        self.shutdown()
        self.server_close()
        for passage in self._passages:
            with suppress(OSError):
                passage.shutdown(socket.SHUT_RDWR)


class Network:
    """A switch. This machine has the address 1 in it, and its servers are reached through relays."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._name = f"ih{os.getpid() % 100000}"
        self._machines = 0
        ip("link", "add", "name", self._name, "type", "bridge")
        stack.callback(ip, "link", "delete", self._name)
        ip("address", "add", f"{NETWORK}.1/24", "dev", self._name)
        ip("link", "set", self._name, "up")

    def machine(self, name: str) -> Machine:
        self._machines += 1
        machine = Machine(self._name, 10 + self._machines, name)
        self._stack.callback(machine.remove)
        return machine

    def relay(self, host: str, port: int) -> str:
        """Let the network reach a server of this machine; return the host and port to use there."""
        relay = Relay((host, port))
        self._stack.callback(relay.remove)
        return f"{NETWORK}.1:{relay.server_address[1]}"


@contextmanager
def network() -> Iterator[Network]:
    """Make a network, and remove it with all its machines."""
    with ExitStack() as stack:
        yield Network(stack)
