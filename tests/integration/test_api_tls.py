"""TLS to the API: its certificate must lead to the CA that is set, and ours is shown where it asks."""

import contextlib
import datetime as dt
import io
import ipaddress
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dicomrx.api import ApiClient, DestinationRefused, Tls
from dicomrx.demo.api_server import DemoApi
from dicomrx.errors import ConfigError
from dicomrx.settings import Settings
from dicomrx.spool.layout import Spool
from dicomrx.stages import upload

PASSPHRASE = b"s3cret-passphrase"
ELSEWHERE = "api.example.org"


@dataclass(frozen=True)
class Pair:
    cert: Path
    key: Path


def issue(folder: Path, name: str, issuer: Pair | None = None, passphrase: bytes | None = None) -> Pair:
    """A certificate for this machine and one elsewhere, of its own or issued by another one."""
    own = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by = x509.load_pem_x509_certificate(issuer.cert.read_bytes()).subject if issuer else subject
    key = serialization.load_pem_private_key(issuer.key.read_bytes(), None) if issuer else own
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(by, subject, own.public_key(), x509.random_serial_number(), now, now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName(ELSEWHERE)]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    lock = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    pair.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))
    return pair


@pytest.fixture
def ca(tmp_path: Path) -> Pair:
    return issue(tmp_path, "ca")


@pytest.fixture
def tls_api(tmp_path: Path, ca: Pair) -> Iterator[DemoApi]:
    """An API that asks for a certificate of ours."""
    served = issue(tmp_path, "server", ca)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca.cert)
    context.load_cert_chain(served.cert, served.key)
    context.verify_mode = ssl.CERT_REQUIRED
    api = DemoApi(tmp_path / "received")
    api._server.socket = context.wrap_socket(api._server.socket, server_side=True)
    with api:
        yield api


class Proxy(socketserver.ThreadingTCPServer):
    """Opens a tunnel to the API whatever the host that is asked for, or answers something else."""

    def __init__(self, api: DemoApi, answer: bytes = b"200 OK") -> None:
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.asked: list[bytes] = []
        self.answer = answer
        self.api_port = api._server.server_port
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Tunnel(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        proxy = cast("Proxy", self.server)
        proxy.asked.append(self.rfile.readline())
        while self.rfile.readline().strip():
            pass
        self.connection.sendall(b"HTTP/1.1 " + proxy.answer + b"\r\n\r\n")
        if proxy.answer == b"200 OK":
            with socket.create_connection(("127.0.0.1", proxy.api_port)) as api:
                back = threading.Thread(target=carry, args=(api, self.connection))
                back.start()
                carry(self.connection, api)
                back.join()


def carry(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


def send(api: DemoApi, tls: Tls, host: str = "127.0.0.1") -> int:
    url = api.url.replace("http://127.0.0.1", f"https://{host}")
    with ApiClient(url, username="demo", password="demo", max_retries=0, retry_delay=0.0, tls=tls) as client:
        return client.upload(io.BytesIO(b"zip"), filename="2.25.1.1.zip", key="0" * 64).status


def test_an_api_with_our_own_ca_is_trusted_and_ours_is_shown(tls_api: DemoApi, tmp_path: Path, ca: Pair) -> None:
    ours = issue(tmp_path, "ours", ca)
    assert send(tls_api, Tls(ca.cert, ours.cert, ours.key)) == 201
    both = tmp_path / "both.pem"
    both.write_bytes(ours.cert.read_bytes() + ours.key.read_bytes())
    assert send(tls_api, Tls(ca.cert, both)) == 201


def test_an_api_is_reached_through_the_proxy_that_the_environment_names(
    tls_api: DemoApi, tmp_path: Path, ca: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = issue(tmp_path, "ours", ca)
    with Proxy(tls_api) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert send(tls_api, Tls(ca.cert, ours.cert, ours.key), ELSEWHERE) == 201
    assert len(proxy.asked) == 2  # the login and the upload
    assert all(line.startswith(f"CONNECT {ELSEWHERE}:".encode()) for line in proxy.asked)


def test_a_proxy_that_opens_no_tunnel_is_an_api_out_of_reach(tls_api: DemoApi, monkeypatch: pytest.MonkeyPatch, ca: Pair) -> None:
    with Proxy(tls_api, b"403 Forbidden") as proxy, pytest.raises(DestinationRefused, match=r"ProxyError"):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        send(tls_api, Tls(ca.cert), ELSEWHERE)
    assert tls_api.requests == []


@pytest.mark.parametrize("how", ["no CA set", "another CA", "no certificate of ours", "ours of another CA"])
def test_who_is_not_known_gets_nothing(tls_api: DemoApi, tmp_path: Path, ca: Pair, how: str) -> None:
    other = issue(tmp_path, "other")
    ours = issue(tmp_path, "ours", other if how == "ours of another CA" else ca)
    tls = {
        "no CA set": Tls(None, ours.cert, ours.key),
        "another CA": Tls(other.cert, ours.cert, ours.key),
        "no certificate of ours": Tls(ca.cert),
        "ours of another CA": Tls(ca.cert, ours.cert, ours.key),
    }[how]
    with pytest.raises(DestinationRefused, match=r"CERTIFICATE_REQUIRED\)|UNKNOWN_CA\)" if tls.ca == ca.cert else r"\(API_CA\)\)"):
        send(tls_api, tls)
    assert tls_api.requests == []


def test_a_file_that_cannot_be_used_is_named_by_its_setting(tmp_path: Path, ca: Pair) -> None:
    ours = issue(tmp_path, "ours", ca)
    locked = issue(tmp_path, "locked", ca, PASSPHRASE)
    gone, garbage = tmp_path / "gone.pem", tmp_path / "garbage.pem"
    garbage.write_text("garbage")
    for tls, setting in [
        (Tls(ca=gone), "API_CA"),
        (Tls(ca=garbage), "API_CA.*no certificate in PEM"),
        (Tls(cert=gone), "API_CERT"),
        (Tls(cert=ours.cert), "API_KEY in it.*no private key, in PEM"),
        (Tls(cert=ours.cert, key=garbage), "API_KEY.*no private key, in PEM"),
        (Tls(cert=ours.cert, key=ca.key), "API_KEY.*do not belong together"),
        (Tls(key=ours.key), "without API_CERT"),
        (Tls(cert=locked.cert, key=locked.key), "passphrase"),
    ]:
        with pytest.raises(ConfigError, match=setting):
            ApiClient("https://127.0.0.1/api", token="t", tls=tls)


def test_the_settings_reach_the_client(tmp_path: Path) -> None:
    with Spool.open(tmp_path / "storage", tmp_path / "zips", make=True) as spool:
        for name in ("api_ca", "api_cert", "api_key"):
            settings = Settings(auto_upload=True, api_url="https://127.0.0.1/api", **{name: tmp_path / "gone"})  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match=name.upper()), upload.build(spool, settings):
                pass
