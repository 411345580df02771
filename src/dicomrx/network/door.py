"""What a peer must do before pynetdicom hears of it: shake hands, where TLS is on, and ask to associate in one sound PDU."""

import contextlib
import socket
import ssl
from typing import Final

from dicomrx.errors import ConfigError, pem_trouble
from dicomrx.network import wire
from dicomrx.network.admission import Listen
from dicomrx.network.visit import Visit
from dicomrx.network.wire import WireError

_NOT_OURS: Final = ("CERTIFICATE_VERIFY_FAILED", "PEER_DID_NOT_RETURN_A_CERTIFICATE")
_MAX_REQUEST: Final = 256 << 10  # 128 contexts of forty transfer syntaxes


def tls_context(listen: Listen) -> ssl.SSLContext | None:
    """TLS as the settings want it: 1.2 or newer, and with TLS_CA only for who has a certificate of it. Raises ConfigError."""
    cert, key, ca = listen.tls_cert, listen.tls_key, listen.tls_ca
    if cert is None:
        if key is not None or ca is not None:
            raise ConfigError("TLS_KEY and TLS_CA do nothing without TLS_CERT, the certificate of the receiver")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, _no_passphrase)
    except OSError as error:
        raise ConfigError(f"TLS_CERT {cert} and TLS_KEY {key or cert} cannot be used: {pem_trouble(error)}") from error
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except OSError as error:
            raise ConfigError(f"TLS_CA {ca} cannot be used: {pem_trouble(error, 'certificate')}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_passphrase() -> str:
    raise ConfigError("TLS_KEY is encrypted: dicomrx cannot ask for its passphrase, give it a plain key that only its user may read")


def _reason(error: OSError) -> str:
    return (isinstance(error, ssl.SSLError) and error.reason) or error.strerror or type(error).__name__


def request(visit: Visit, tls: ssl.SSLContext | None) -> bytes:
    """The A-ASSOCIATE-RQ that the peer begins with, as far as it is listened to.

    Raises OSError where it begins otherwise; the deadline is the admission's.
    """
    if tls is not None:
        _shake_hands(visit, tls)
    try:
        return _sound_request(visit.client)
    except WireError as error:
        visit.turn_away("", f"it sent {error}")
        with contextlib.suppress(OSError):
            visit.client.sendall(wire.pdu(wire.ABORT, bytes(4)))
        raise ConnectionAbortedError(str(error)) from error


def _sound_request(client: socket.socket) -> bytes:
    header = _exactly(client, 6)
    kind, length = wire.header(header)
    if kind != wire.ASSOCIATE_RQ or length > _MAX_REQUEST:
        raise WireError("something else than a request to associate")
    body = _exactly(client, length)
    # An offer is taken in its first transfer syntax; a thousand others would cost pynetdicom seconds.
    return wire.pdu(kind, wire.slim_associate_rq(body))


def _shake_hands(visit: Visit, tls: ssl.SSLContext) -> None:
    try:
        visit.client = tls.wrap_socket(visit.client, server_side=True, do_handshake_on_connect=False)
        visit.client.do_handshake()
    except ssl.SSLError as error:
        reason = _reason(error)
        visit.turn_away("TLS_CA" if reason in _NOT_OURS else "TLS_CERT", f"the TLS handshake failed: {reason}")
        raise


def _exactly(client: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = client.recv(count - len(data))
        if not more:
            raise ConnectionResetError("the peer has gone")
        data += more
    return bytes(data)
