"""Real servers on loopback: a decoy that must see nobody, and a site. 127.0.0.2 stands for the public internet."""

import http.server
import ipaddress
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SITE = "127.0.0.2"

_connects: list[object] | None = None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and _connects is not None and arguments[0].type == socket.SOCK_STREAM:
        _connects.append(arguments[1])


sys.addaudithook(_watch)  # for good: Python takes none back


@contextmanager
def connects() -> Iterator[list[object]]:
    """Give a list that each attempt of this process to open a connection is added to, before it is made."""
    global _connects
    _connects = []
    try:
        yield _connects
    finally:
        _connects = None


class Decoy:
    """Listens, and notes who comes."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._socket = socket.create_server((host, port))
        self.port: int = self._socket.getsockname()[1]
        self.visitors: list[object] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                visitor, address = self._socket.accept()
            except OSError:
                return
            self.visitors.append(address)
            visitor.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


Page = Callable[["Visit"], None]


class Visit(http.server.BaseHTTPRequestHandler):
    """A request to a site. Pages of a site are functions of it."""

    server: "Site"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers))
        self.close_connection = True
        self.server.pages.get(self.path.partition("?")[0], not_found)(self)

    do_POST = do_GET  # noqa: N815

    def answer(self, body: bytes = b"", *, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


class Site(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str = SITE, port: int = 0, *, certificate: Path | None = None) -> None:
        super().__init__((host, port), Visit)
        self.host, self.port = host, self.server_address[1]
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, Message]] = []
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def url(self, path: str = "/", *, host: str = "") -> str:
        return f"{self.scheme}://{host or self.host}:{self.port}{path}"

    def handle_error(self, *arguments: object) -> None:
        """Say nothing: clients that break off are what is tested."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def site_and_decoy() -> tuple[Site, Decoy]:
    """Start both on one port, which has to be free on both of their addresses."""
    while True:
        decoy = Decoy()
        try:
            return Site(port=decoy.port), decoy
        except OSError:
            decoy.close()


def not_found(visit: Visit) -> None:
    visit.answer(b"nothing", status=404)


def page(body: bytes, **headers: str) -> Page:
    return lambda visit: visit.answer(body, **headers)


def redirect(location: str, status: int = 302) -> Page:
    return lambda visit: visit.answer(status=status, Location=location)


def certificates(folder: Path) -> tuple[Path, Path]:
    """Make an authority and a certificate of it for the site; return the authority's, and the site's with its key."""
    key, authority_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test")])

    def signed(name: x509.Name, of: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(of.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(days=1))
            .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        certificate = builder.sign(authority_key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)

    usage = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = folder / "authority.pem"
    authority.write_bytes(
        signed(issuer, authority_key, x509.BasicConstraints(ca=True, path_length=None), usage)
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(SITE))])
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SITE)])
    own = folder / "site.pem"
    own.write_bytes(
        private
        + signed(
            subject,
            key,
            names,
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
        )
    )
    return authority, own
