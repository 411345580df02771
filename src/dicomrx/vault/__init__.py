"""`<state>`: who is who, and every original; opened only by what de-identifies, restores, or manages identities."""

from dicomrx.vault.binding import open_bound
from dicomrx.vault.identities import Patient, identity_key
from dicomrx.vault.state import State
from dicomrx.vault.store import Original, Record, Vault

__all__ = ["Original", "Patient", "Record", "State", "Vault", "identity_key", "open_bound"]
