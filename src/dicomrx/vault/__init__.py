"""`<state>`: who is who, and every original; opened only by what de-identifies, restores, or manages identities."""

from dicomrx.vault.binding import open_bound
from dicomrx.vault.identities import Assignment, Patient
from dicomrx.vault.pseudonyms import Format
from dicomrx.vault.state import State
from dicomrx.vault.store import Original, Own, Position, Record, Vault
from dicomrx.vault.who import Placeholders, Who, id_key, identify

__all__ = [
    "Assignment",
    "Format",
    "Original",
    "Own",
    "Patient",
    "Placeholders",
    "Position",
    "Record",
    "State",
    "Vault",
    "Who",
    "id_key",
    "identify",
    "open_bound",
]
