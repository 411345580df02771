"""De-identification (PS3.15 Annex E): bytes in, a data set without an identity out. It knows no file, no clock and no setting."""

from dicomrx.deid.actions import Context, pseudonymous_uid
from dicomrx.deid.dataset import DataSet, Output, Value
from dicomrx.deid.describing import describe
from dicomrx.deid.engine import deidentify
from dicomrx.deid.explaining import explain
from dicomrx.deid.memory import Memory
from dicomrx.deid.pixels import at_pixels, shared_pixels
from dicomrx.deid.profile import BASIC, Profile, labelled_profile, named_profile
from dicomrx.deid.reading import Identity, Instance, outline, read
from dicomrx.deid.refusals import check
from dicomrx.deid.scan import Needles, needles, proves, survivors
from dicomrx.deid.second_look import look_again
from dicomrx.deid.site_profile import site_profile
from dicomrx.deid.writing import parts, write

__all__ = [
    "BASIC",
    "Context",
    "DataSet",
    "Identity",
    "Instance",
    "Memory",
    "Needles",
    "Output",
    "Profile",
    "Value",
    "at_pixels",
    "check",
    "deidentify",
    "describe",
    "explain",
    "labelled_profile",
    "look_again",
    "named_profile",
    "needles",
    "outline",
    "parts",
    "proves",
    "pseudonymous_uid",
    "read",
    "shared_pixels",
    "site_profile",
    "survivors",
    "write",
]
