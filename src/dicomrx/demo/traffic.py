"""Several senders at once, as modalities are: real associations, real C-STORE, each data set untouched."""

import threading
from collections.abc import Sequence
from typing import Final

from dicomrx.demo.gateway import AE_TITLE, LOOPBACK
from dicomrx.demo.samples import UPLOADED, Sample
from dicomrx.errors import DicomrxError
from dicomrx.network.sender import send

CALLING: Final = ("DEMO_CT", "DEMO_MR", "DEMO_RT", "DEMO_PACS")
_RESENT_BY: Final = "DEMO_AGAIN"


class Traffic:
    """Sends every sample once over as many associations as there are titles, side by side, and one of them a second time."""

    def __init__(self, samples: Sequence[Sample], port: int) -> None:
        self.answers: list[tuple[int, int | None]] = []
        self.troubles: list[str] = []
        self.total = len(samples) + 1
        self._samples = samples
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more after what is on its way."""
        self._stop.set()

    @property
    def done(self) -> bool:
        """True when everything was sent, or could not be."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        count = len(CALLING)
        lanes = [
            threading.Thread(target=self._send, args=(self._samples[lane::count], CALLING[lane]), daemon=True) for lane in range(count)
        ]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        self._send([resent(self._samples)], _RESENT_BY)

    def _send(self, samples: Sequence[Sample], calling: str) -> None:
        numbers = {sample.path: sample.number for sample in samples}
        try:
            for sent in send(list(numbers), LOOPBACK, self._port, calling=calling, called=AE_TITLE):
                self.answers.append((numbers[sent.path], sent.status))
                if self._stop.is_set():
                    return
        except (DicomrxError, OSError) as error:
            self.troubles.append(f"{calling}: {error if isinstance(error, DicomrxError) else type(error).__name__}")


def resent(samples: Sequence[Sample]) -> Sample:
    """The instance that is sent a second time: the first one that is uploaded whatever else is sent."""
    wanted = [sample for sample in samples if sample.expected == UPLOADED]
    return next(sample for sample in wanted if sum(other.uids == sample.uids for other in wanted) == 1)
