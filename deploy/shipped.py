"""The shipped units and the shipped site of nginx, run without systemd: only paths, ports and the certificate differ."""

import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent
INSTALLED = "/opt/imagehub"
STATE = "/var/lib/imagehub"


@dataclass
class Site:
    """Where this copy of the set-up lies, and as whom it runs."""

    folder: Path
    web_port: int
    http_port: int
    https_port: int
    identity: dict[str, object] = field(default_factory=dict)
    """Arguments of ``Popen`` that say as whom the services run."""
    nginx_user: str = "root"

    def placed(self, text: str) -> str:
        """Return text of a shipped file with the paths and ports of this copy."""
        text = text.replace(f"{INSTALLED}/", f"{DEPLOY.parent}/").replace(
            "127.0.0.1:8000", f"127.0.0.1:{self.web_port}"
        )
        return text.replace(INSTALLED, str(DEPLOY.parent)).replace(STATE, str(self.folder))


def settings_of(unit: str, *, instance: str = "") -> dict[str, list[str]]:
    """Return what the section [Service] of a shipped unit says, with ``%i`` filled in."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in (DEPLOY / "systemd" / unit).read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value.replace("%i", instance))
    return found


def health_check(image: str, site: Site) -> list[str]:
    """Return the command by which a container of an image (``web``, ``worker``) is asked whether it is well, for this copy."""
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    stage = re.split(r"^FROM ", text.split(f" AS {image}\n")[1], flags=re.MULTILINE)[0]
    command = json.loads(re.search(r"HEALTHCHECK.*?CMD (\[[^\n]*\])$", stage, re.MULTILINE | re.DOTALL)[1])
    return [part.replace("'127.0.0.1', 8000", f"'127.0.0.1', {site.web_port}") for part in command]


def environment(site: Site, differing: Mapping[str, str]) -> dict[str, str]:
    """Return the shipped example of an environment, for this copy."""
    lines = (DEPLOY / "systemd" / "imagehub.env.example").read_text().splitlines()
    pairs = (line.partition("=")[::2] for line in lines if line and not line.startswith("#"))
    return {name: site.placed(value) for name, value in pairs} | dict(differing)


class Unit:
    """A service as systemd would run it."""

    def __init__(self, name: str, site: Site, env: Mapping[str, str], *, instance: str = "") -> None:
        said = settings_of(name, instance=instance)
        if (said["Type"], said["KillMode"]) != (["notify"], ["mixed"]):
            raise ValueError(f"{name} is of another kind than is run here.")
        self.name = instance or name
        self.stop_seconds = float(said["TimeoutStopSec"][0])
        self.reload_signal = {"/bin/kill -HUP $MAINPID": signal.SIGHUP}.get(said.get("ExecReload", [""])[0])
        self._address = site.folder / f"notify-{self.name}"
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.bind(str(self._address))
        self._address.chmod(0o777)
        self.log = site.folder / f"{self.name}.log"
        own = dict(shlex.split(value)[0].partition("=")[::2] for value in said.get("Environment", []))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                shlex.split(site.placed(said["ExecStart"][0])),
                cwd=site.placed(said["WorkingDirectory"][0]),
                env=dict(env) | own | {"NOTIFY_SOCKET": str(self._address), "PATH": os.environ["PATH"]},
                umask=int(said["UMask"][0], 8),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **site.identity,
            )

    def wait_until_it_says(self, state: str, *, seconds: float) -> None:
        """Wait for a message to systemd."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.process.poll() is not None:
                break
            if (
                select.select([self._line], [], [], min(left, 0.2))[0]
                and state in self._line.recv(4096).decode()
            ):
                return
        raise AssertionError(f"{self.name} did not say {state}:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> int:
        """Ask the main process alone to end, as ``KillMode=mixed`` does. Returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=self.stop_seconds)

    def clear(self) -> list[int]:
        """Kill what is left of the service. Returns the processes that were."""
        left = members_of(self.process.pid)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._line.close()
        return left


def members_of(session: int) -> list[int]:
    """Return the living processes of a session."""
    listing = subprocess.run(
        ["ps", "-e", "-o", "pid=,sid=,stat="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in listing.stdout.splitlines()]
    return [int(row[0]) for row in rows if int(row[1]) == session and not row[2].startswith("Z")]


def make_certificate(folder: Path) -> None:
    """Make a certificate that signs itself, for the name of the shipped site and for this machine."""
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", "/CN=images.example.com"]
    argv += ["-addext", "subjectAltName=DNS:images.example.com,IP:127.0.0.1"]
    argv += ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    subprocess.run(argv, check=True, capture_output=True)


def nginx_configuration(site: Site) -> Path:
    """Write a main configuration around the shipped site, as Debian's is around conf.d. Returns its path."""
    shipped = site.placed((DEPLOY / "nginx" / "imagehub.conf").read_text())
    shipped = re.sub(r"listen \[::\].*\n", "", shipped)
    shipped = shipped.replace("listen 80;", f"listen 127.0.0.1:{site.http_port};")
    shipped = shipped.replace("listen 443 ", f"listen 127.0.0.1:{site.https_port} ")
    shipped = shipped.replace("/etc/ssl/imagehub", str(site.folder))
    shipped = shipped.replace("/etc/nginx/imagehub", str(DEPLOY / "nginx"))
    temporary = "".join(
        f"{kind}_temp_path {site.folder}/nginx-{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = site.folder / "nginx.conf"
    path.write_text(
        f"daemon off;\nuser {site.nginx_user};\npid {site.folder}/nginx.pid;\nerror_log {site.folder}/nginx.log;\n"
        "worker_processes 1;\nevents {}\n"
        f"http {{\ninclude /etc/nginx/mime.types;\n{temporary}{shipped}}}\n"
    )
    return path
