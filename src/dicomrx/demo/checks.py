"""The demo's judgement: every instance where it was expected, once, without a trace of its identity, and restorable."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from typing import Final

from dicomrx import deid
from dicomrx.demo.evidence import Entry, Evidence
from dicomrx.demo.samples import CONFLICT, ORDINARY_WORDS, REFUSED, UPLOADED, Sample
from dicomrx.errors import Reject

_PIXEL_DATA: Final = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_UID: Final = r"2\.25\.(?:0|[1-9]\d{0,38})"
_ENTRY_NAME: Final = re.compile(rf"({_UID})/({_UID})/({_UID})\.dcm", re.ASCII)
_OUTSIDE: Final = "bytes outside the pixels"
_HEX: Final = 12


def findings(samples: Sequence[Sample], evidence: Evidence) -> list[str]:
    """What is wrong, one line each; none where all is as it should be. Instances are named by number and digest only."""
    uploads = _by_key(evidence.entries)
    return [
        *_lost_or_doubled(samples, evidence, uploads),
        *_groups(samples, uploads),
        *_strangers(samples, evidence),
        *_unbalanced(evidence),
        *_mixed(samples, uploads),
        *_leaks(samples, evidence),
    ]


def rivals(samples: Iterable[Sample]) -> dict[tuple[str, str, str], list[Sample]]:
    """The instances that are to be uploaded by their UIDs: of several with the same ones only one can be."""
    found: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.expected == UPLOADED:
            found[sample.uids].append(sample)
    return dict(found)


def _by_key(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        for key in entry.originals:
            if key is not None:
                found[key].append(entry)
    return dict(found)


def _lost_or_doubled(samples: Sequence[Sample], evidence: Evidence, uploads: dict[str, list[Entry]]) -> Iterator[str]:
    by_number = {sample.number: sample for sample in samples}
    accepted = Counter(by_number[number].key for number, answer in evidence.answers if answer == 0)
    contested = {sample.number for group in rivals(samples).values() if len(group) > 1 for sample in group}
    for sample in samples:
        aside = {reason: count for (reason, key), count in evidence.quarantined.items() if key == sample.key}
        copies = len(uploads.get(sample.key, ()))
        times = accepted[sample.key]
        if copies > 1:
            yield f"{sample.label} is doubled: it was uploaded {copies} times"
        elif sample.expected == REFUSED:
            if times or copies or aside:
                yield f"{sample.label} was accepted: {_seen(copies, aside)}; it should have been refused"
        elif not times:
            yield f"{sample.label} was not acknowledged"
        elif not _is_expected(sample, copies, aside, times, contested=sample.number in contested):
            yield f"{sample.label} is neither uploaded nor in quarantine as expected ({sample.expected}): {_seen(copies, aside)}"


def _is_expected(sample: Sample, copies: int, aside: dict[str, int], times: int, *, contested: bool) -> bool:
    if sample.expected != UPLOADED:
        return copies == 0 and aside == {sample.expected: times}
    if copies == 1:
        return not aside
    return contested and aside == {CONFLICT: times}


def _seen(copies: int, aside: dict[str, int]) -> str:
    places = [f"{copies} uploaded", *(f"{count} in quarantine as {reason}" for reason, count in sorted(aside.items()))]
    return ", ".join(places)


def _groups(samples: Sequence[Sample], uploads: dict[str, list[Entry]]) -> Iterator[str]:
    """Of those with the same UIDs exactly one is uploaded; two of them may have become the same output."""
    for group in rivals(samples).values():
        made = {(entry.bundle, entry.name) for sample in group for entry in uploads.get(sample.key, ())}
        if len(group) > 1 and len(made) != 1:
            numbers = ", ".join(str(sample.number) for sample in group)
            yield f"{group[0].label}: of the instances {numbers}, which share their UIDs, {len(made)} were uploaded instead of one"


def _strangers(samples: Sequence[Sample], evidence: Evidence) -> Iterator[str]:
    """What was not sent and is there, and uploads whose original did not come back byte for byte."""
    known = {sample.key for sample in samples}
    for entry in evidence.entries:
        if not entry.originals:
            yield f"{_called(entry)} was not restored"
        elif any(key not in known for key in entry.originals):
            yield f"{_called(entry)} was restored to bytes that were never sent"
    for reason, key in evidence.quarantined:
        if key not in known:
            yield f"in quarantine as {reason} lies what was never sent ({key[:_HEX]})"
    if evidence.strays:
        yield f"`restore` wrote {evidence.strays} files that belong to no upload"


def _unbalanced(evidence: Evidence) -> Iterator[str]:
    """Conservation: what the pipeline says of itself against what is there."""
    uploaded, aside = len(evidence.entries), evidence.quarantined.total()
    counted = {
        "acknowledged": evidence.acknowledged,
        "filed": uploaded,
        "quarantined": aside,
        "duplicate": evidence.acknowledged - uploaded - aside,
    }
    for fate, count in counted.items():
        if evidence.fates.get(fate, 0) != count:
            yield f"`dicomrx status` counts {evidence.fates.get(fate, 0)} {fate}, and there are {count}"


def _mixed(samples: Sequence[Sample], uploads: dict[str, list[Entry]]) -> Iterator[str]:
    """One study stays one and two stay two; patients likewise, as far as an ID tells who they are."""
    pairs = [(sample, entry) for sample in samples for entry in uploads.get(sample.key, ())]
    studies = {(sample.uids[0], entry.study) for sample, entry in pairs}
    patients = {(sample.patient, entry.patient) for sample, entry in pairs if sample.patient}
    for what, found in (("study", studies), ("patient", patients)):
        if len({original for original, _ in found}) != len(found):
            yield f"one {what} was uploaded under several pseudonyms"
        if len({pseudonym for _, pseudonym in found}) != len(found):
            yield f"more than one {what} was uploaded under one pseudonym"


def _leaks(samples: Sequence[Sample], evidence: Evidence) -> Iterator[str]:
    by_key = {sample.key: sample for sample in samples}
    for entry in evidence.entries:
        sources = [by_key[key] for key in entry.originals if key in by_key]
        try:
            yield from _entry_leaks(entry, sources)
        except Reject as error:
            yield f"{_called(entry)} cannot be read: {error.reason}"
    sought = deid.Needles(frozenset().union(*(values(sample) for sample in samples)))
    if sought.found_in(evidence.said):
        yield "a log line or the status view holds a value of an original"


def _entry_leaks(entry: Entry, sources: Sequence[Sample]) -> Iterator[str]:
    output = deid.read(BytesIO(entry.data))
    match = _ENTRY_NAME.fullmatch(entry.name)
    if match is None or match.groups() != (output.study_uid, output.series_uid, output.sop_uid):
        yield f"{_called(entry)}: its name is not made of its own pseudonymous UIDs"
    for sample in sources:
        original = sample.path.read_bytes()
        told = deid.read(BytesIO(original)).dataset
        sought = deid.Needles(values(sample))
        if not _is_proven(sought, original, told):
            yield f"{sample.label}: the search finds nothing in the original, so it proves nothing"
        for place in _places(sought, f"{entry.bundle}/{entry.name}", entry.data, output.dataset):
            yield f"{sample.label}, uploaded as {_called(entry)}: a value of the original in {place}"
        if _pixels(output.dataset) != _pixels(told):
            yield f"{sample.label}, uploaded as {_called(entry)}: its pixels are not those that were sent"


def values(sample: Sample) -> frozenset[str]:
    """What must not be found again of a sample; nothing where it cannot be read."""
    try:
        with sample.path.open("rb") as file:
            found = deid.needles(deid.read(file)).values
    except Reject:
        return frozenset()
    return found - ORDINARY_WORDS.get(sample.name, frozenset())


def _is_proven(sought: deid.Needles, original: bytes, told: deid.DataSet) -> bool:
    """Whether each of the searches finds something where something is."""
    planted = any(deid.survivors(sought, f"{value}/1.dcm") for value in sought.values)
    return planted and bool(deid.survivors(sought, told, everywhere=True)) and sought.found_in(_outside_pixels(original, told))


def _places(sought: deid.Needles, name: str, data: bytes, dataset: deid.DataSet) -> list[str]:
    """Where a value stands: in the names, in an element of any VR at any depth, or anywhere in the file but its pixels."""
    places = [*deid.survivors(sought, name), *deid.survivors(sought, dataset, everywhere=True)]
    if sought.found_in(_outside_pixels(data, dataset)):
        places.append(_OUTSIDE)
    return places


def _outside_pixels(data: bytes, dataset: deid.DataSet) -> str:
    """The file without its pixels, preamble and trailing bytes included."""
    for value in _pixels(dataset):
        before, found, after = data.rpartition(value)  # pixels come last, or nearly so
        data = before + b"\0" + after if found else data
    return data.decode("latin-1")


def _pixels(dataset: deid.DataSet) -> list[bytes]:
    values = [bytes(dataset[tag].value) for tag in _PIXEL_DATA if tag in dataset]
    return [value for value in values if value]


def _called(entry: Entry) -> str:
    """An upload by the ends of its pseudonymous UIDs; whatever else stands in its name is not repeated."""
    match = _ENTRY_NAME.fullmatch(entry.name)
    return f"…{match[3][-_HEX:]}" if match else f"an entry of upload {entry.bundle[:4]}"
