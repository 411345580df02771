"""Exit 0 where the receiver in this container answers a DICOM association on loopback, 1 where it does not.

A receiver that refuses this caller by its title (CALLING_AE) has answered, so it is alive.
"""

import os
import sys

from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import, so mypy cannot see it

from dicomrx.settings import resolve

TIMEOUT_S = 5
ECHO_SUCCESS = 0x0000


def answers(port: int, called: str) -> bool:
    """Ask for an association and, given one, a C-ECHO."""
    ae = AE(ae_title="HEALTHCHECK")
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return association.is_rejected
    status = association.send_c_echo().get("Status")
    association.release()
    return bool(status == ECHO_SUCCESS)


if __name__ == "__main__":
    # From the environment and the configuration file that it names, as the receiver has them; no secret is opened for it.
    settings = resolve({}, os.environ, secrets=False).settings
    sys.exit(0 if answers(settings.port, settings.ae_title) else 1)
