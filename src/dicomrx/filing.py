"""Files what was made of arrivals: an original goes to the vault first, its input goes last; several are made durable together."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import file_digest
from pathlib import Path
from typing import BinaryIO

from dicomrx.errors import Reject
from dicomrx.spool import durable, evidence, incoming
from dicomrx.spool.evidence import Sighting
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival
from dicomrx.spool.spares import Spares
from dicomrx.spool.studies import Addition, Study, file_all
from dicomrx.vault import Original, Position, Record, Vault

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """An arrival, claimed as `file`, and what was made of it: `part`, open as `fd`, which nobody has synced yet."""

    arrival: Arrival
    file: BinaryIO
    part: Path
    fd: int
    original: Original
    sighting: Sighting

    def output_sha256(self) -> str:
        """SHA-256 of the part, in hex."""
        output = self.original.output
        if isinstance(output, str):
            return output
        with self.part.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    def at_pixels(self, record: Record) -> BinaryIO:
        """The file, where the pixels begin that a record of the same data set does not hold: its head may be of another length."""
        self.file.seek(self.original.dataset + record.pixels_at)
        return self.file


Outcomes = dict[Arrival, Fate | Exception]
"""What became of arrivals, or what kept them from it."""


class Filing:
    """From a spool's `incoming/` to its `studies/`."""

    def __init__(self, spool: Spool, vault: Vault, spares: Spares) -> None:
        self._spool = spool
        self._vault = vault
        self._spares = spares

    def refuse(self, study: str, arrival: Arrival, sighting: Sighting) -> None:
        """Note for its study an arrival that goes to quarantine."""
        with Study.locked(self._spool, study) as held:
            evidence.note(self._spool, study, replace(sighting, fate=Fate.QUARANTINED))
            held.arrived(arrival.end)

    def file(self, made: Sequence[Made]) -> Outcomes:
        """File them, or find that they are duplicates; Reject is a conflict, any other error the machine's."""
        outcomes: Outcomes = {}
        synced: list[Made] = []
        for one, error in zip(made, durable.sync_all([one.fd for one in made]), strict=True):
            if error is None:
                synced.append(one)
            else:
                outcomes[one.arrival] = error
        for some in _rounds(synced):
            outcomes |= self._file_all(some)
        return outcomes

    def _file_all(self, made: Sequence[Made]) -> Outcomes:
        """File arrivals of different instances, their outputs synced, all together; what cannot be done so is tried one by one."""
        try:
            return self._file(made)
        except Exception as error:  # noqa: BLE001  the caller's to judge
            with suppress(OSError):
                self._vault.sync()  # what is lost of this batch is appended again with it
            if len(made) == 1:
                return {made[0].arrival: error}
            return {arrival: outcome for one in made for arrival, outcome in self._file_all([one]).items()}

    def _file(self, made: Sequence[Made]) -> Outcomes:
        by_study: defaultdict[str, list[Made]] = defaultdict(list)
        for one in made:
            by_study[one.original.study].append(one)
        with Study.all_locked(self._spool, by_study) as studies:
            outcomes = self._decide_all(studies, made)
            fates = {arrival: outcome for arrival, outcome in outcomes.items() if isinstance(outcome, Fate)}
            file_all({studies[uid]: self._noted(uid, some, fates) for uid, some in by_study.items()})
            incoming.finish(self._spool, fates, self._spares)
        for one in made:
            log.debug("%s: %s: %s/%s", one.arrival.id, outcomes[one.arrival], one.original.series, one.original.instance)
        for uid, some in by_study.items():
            for fate, count in Counter(fates[one.arrival] for one in some if one.arrival in fates).items():
                log.info("%s: %d %s", uid, count, fate)
        return outcomes

    def _decide_all(self, studies: Mapping[str, Study], made: Sequence[Made]) -> Outcomes:
        """What is to become of each; by then its original is in the vault, durably, and the spool knows how far that has come."""
        outcomes: Outcomes = {}
        positions: dict[str, int] = {}
        known = self._vault.find_all([one.original.instance for one in made])
        for one in made:
            try:
                outcomes[one.arrival], (segment, end) = self._decide(studies[one.original.study], one, known[one.original.instance])
            except Reject as never:
                outcomes[one.arrival] = never
            else:
                positions[segment] = max(end, positions.get(segment, 0))
        self._vault.sync()
        for segment, end in positions.items():
            self._spool.binding.note_position(segment, end)
        return outcomes

    def _decide(self, study: Study, one: Made, known: Sequence[Record]) -> tuple[Fate, Position]:
        """To be filed, or proven to be filed already (design: promise 4), with how far the vault had come by then, once it is synced.

        A vault record alone proves nothing: a crash may have come between it and the filing.
        """
        original = one.original
        filed = study.filed(original.series, original.instance)
        made = self._made_before(one, known)
        proven = next((record for output, record in made.items() if output in filed), None)
        if proven is not None:
            return Fate.DUPLICATE, proven.position
        output = one.output_sha256() if filed or made else None
        if filed and output not in filed:
            raise Reject("conflict", "an instance with this UID and another content is filed already")
        position = made[output].position if output in made else self._vault.append(original, one.file, len(known))
        return Fate.DUPLICATE if filed else Fate.FILED, position

    def _made_before(self, one: Made, known: Sequence[Record]) -> dict[str | None, Record]:
        """The records of the same data set, by what was made of it then (SHA-256); under None is one of which nobody can tell any more."""
        same = self._vault.same(one.original)
        return {self._vault.output_sha256(record, partial(one.at_pixels, record)): record for record in known if record.same == same}

    def _noted(self, study: str, made: Sequence[Made], fates: Mapping[Arrival, Fate]) -> Addition:
        """Note what arrived for a study; returns what is to be filed."""
        met = [(one, fates.get(one.arrival, Fate.QUARANTINED)) for one in made]
        evidence.note(self._spool, study, *(replace(one.sighting, fate=fate) for one, fate in met))
        parts = {(one.original.series, one.original.instance): one.part for one, fate in met if fate is Fate.FILED}
        return Addition(parts, max(one.arrival.end for one in made))


def _rounds(made: Sequence[Made]) -> list[list[Made]]:
    """In none of them is an instance twice: what is filed first decides about what comes after."""
    rounds: list[list[Made]] = []
    met: Counter[str] = Counter()
    for one in made:
        if met[one.original.instance] == len(rounds):
            rounds.append([])
        rounds[met[one.original.instance]].append(one)
        met[one.original.instance] += 1
    return rounds
