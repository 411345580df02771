"""The REST API that studies are sent to: the only package that knows httpx and stamina."""

from dicomrx.api.client import MAX_RETRY_AFTER_S, RETRY_TIMEOUT_S, ApiClient, Timeouts
from dicomrx.api.destination import Tls, warning_of
from dicomrx.api.outcomes import Accepted, DestinationRefused, Journal, UploadDeferred, UploadRejected

__all__ = [
    "MAX_RETRY_AFTER_S",
    "RETRY_TIMEOUT_S",
    "Accepted",
    "ApiClient",
    "DestinationRefused",
    "Journal",
    "Timeouts",
    "Tls",
    "UploadDeferred",
    "UploadRejected",
    "warning_of",
]
