"""TLS: who gets in, who does not, and that nobody waits for another's handshake."""

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomrx.errors import ConfigError, UnavailableError
from dicomrx.network import wire
from dicomrx.network.admission import Listen
from dicomrx.network.client import Association
from dicomrx.network.server import Server, serve
from tests.integration.certificates import Authority
from tests.integration.scp_rig import (
    ENGINES,
    LISTEN,
    OFFERS,
    TITLES,
    Folder,
    answer,
    arrivals,
    data_set_of,
    eventually,
    receiving,
    store,
    store_command,
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), "hospital")


@pytest.fixture(scope="module")
def listen(ours: Authority) -> Listen:
    return replace(LISTEN, tls_cert=ours.issue("receiver"), tls_ca=ours.certificate)


@pytest.fixture(scope="module")
def modality(ours: Authority) -> ssl.SSLContext:
    return client_context(ours, ours.issue("modality"))


@pytest.fixture(params=ENGINES)
def intake(tmp_path: Path, request: pytest.FixtureRequest) -> Folder:
    return Folder(tmp_path, request.param)


def client_context(trusted: Authority, own: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(trusted.certificate))
    context.check_hostname = False
    if own is not None:
        context.load_cert_chain(own)
    return context


@contextlib.contextmanager
def connected(server: Server, context: ssl.SSLContext, timeout_s: float = 10, source: str = "") -> Iterator[Association]:
    plain = socket.create_connection(server.address, timeout_s, source_address=(source, 0))
    with context.wrap_socket(plain) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        association = Association(stream, "the receiver")
        association._negotiate(TITLES, OFFERS)
        with association:
            yield association


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_modality_with_a_certificate_of_ours_sends(intake: Folder, listen: Listen, ours: Authority, version: ssl.TLSVersion) -> None:
    context = client_context(ours, ours.issue("scanner"))
    context.minimum_version = context.maximum_version = version
    data = [os.urandom(length) for length in (0, 1, 100_000, 3_000_001)]
    with receiving(intake, listen) as server, connected(server, context) as association:
        assert association.echo(3) == 0
        assert [store(association, content) for content in data] == [0] * len(data)
        assert association.echo(3) == 0
    assert [data_set_of(path) for path in arrivals(intake)] == data
    assert intake.notes[-1]["ended"] == "released"


def test_what_lies_decrypted_and_unread_is_not_waited_for(intake: Folder, listen: Listen, modality: ssl.SSLContext) -> None:
    stored = wire.p_data(1, b"\3" + store_command()) + wire.p_data(1, b"\2data")
    echo = wire.p_data(3, b"\3" + wire.echo_request(1))
    with receiving(intake, listen) as server, connected(server, modality) as association:
        association.write([stored + echo + stored + echo])  # one TLS record
        assert [answer(association) for _ in range(4)] == [0] * 4
    assert [data_set_of(path) for path in arrivals(intake)] == [b"data"] * 2


def test_who_has_no_certificate_of_ours_is_refused_and_it_is_told(intake: Folder, listen: Listen, ours: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "theirs", "elsewhere")
    old = client_context(ours, ours.issue("old"))
    with pytest.deprecated_call():
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with receiving(intake, listen) as server:
        for context in (client_context(ours, None), client_context(ours, stranger.issue("rogue")), old):
            with pytest.raises((OSError, UnavailableError)), connected(server, context):
                pass
        with socket.create_connection(server.address, 10) as plain:
            plain.sendall(wire.associate_rq(*TITLES, OFFERS))
            with contextlib.suppress(ConnectionResetError):
                assert b"DICOM" not in plain.recv(1000)
        eventually(lambda: sum(refused.count for refused in server.admission.refusals._kept.values()) == 4)
        refused = server.refused() or []
    assert sorted(str(row["setting"]) for row in refused) == ["TLS_CA", "TLS_CA", "TLS_CERT", "TLS_CERT"]
    assert all(str(row["why"]).startswith("the TLS handshake failed: ") for row in refused)
    assert intake.notes == []


def test_nobody_waits_for_the_handshake_of_another(intake: Folder, listen: Listen, modality: ssl.SSLContext) -> None:
    with receiving(intake, replace(listen, associate_s=1.0)) as server:
        stallers = [socket.create_connection(server.address, 10) for _ in range(30)]
        for staller in stallers[::2]:
            staller.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
        began = time.monotonic()
        with connected(server, modality, source="127.0.0.2") as association:
            assert association.echo(3) == 0
        assert time.monotonic() - began < 1
        eventually(lambda: not server.admission._waiting)
        for staller in stallers:
            staller.close()


def test_stopping_in_the_middle_of_an_instance_tells_the_peer_even_through_tls(
    intake: Folder, listen: Listen, modality: ssl.SSLContext
) -> None:
    with receiving(intake, listen) as server:
        plain = socket.create_connection(server.address, 10)
        with modality.wrap_socket(plain) as stream:
            association = Association(stream, "the receiver")
            association._negotiate(TITLES, OFFERS)
            association.write([wire.p_data(1, b"\3" + store_command()), wire.p_data(1, b"\0data")])
            eventually(lambda: list(intake.receiving.iterdir()))
            assert server.stop(grace_s=0) is True
            assert association.read()[0] == wire.ABORT
    assert list(intake.receiving.iterdir()) == arrivals(intake) == []


def test_what_is_wrong_with_the_files_is_a_matter_for_the_configuration(intake: Folder, ours: Authority, tmp_path: Path) -> None:
    good = ours.issue("good")
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tls_ca": ours.certificate}, "without TLS_CERT"),
        ({"tls_key": good}, "without TLS_CERT"),
        ({"tls_cert": tmp_path / "missing.pem"}, "TLS_CERT.*No such file"),
        ({"tls_cert": nothing}, "TLS_CERT.*no private key, in PEM"),
        ({"tls_cert": ours.certificate, "tls_key": good}, "TLS_KEY.*do not belong together"),
        ({"tls_cert": good, "tls_ca": nothing}, "TLS_CA.*no certificate in PEM"),
    ]
    for files, told in wrong:
        with pytest.raises(ConfigError, match=told):
            serve(replace(LISTEN, **files), intake).start()
