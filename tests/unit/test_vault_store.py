"""Originals: encrypted, appended, found by every process at once, and given back byte for byte or not at all."""

import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
import zlib
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from dicomrx.errors import ConfigError, NoInputError, PermissionRefused
from dicomrx.vault import Own, Record, State
from dicomrx.vault.keys import record_key
from dicomrx.vault.opening import decrypt, output_sha256
from dicomrx.vault.segments import FRAME, scan
from tests.unit.vault_files import MADE, child, content, original, put, restored, who

# Appends original after original, and says so when the vault does; argument 2 is where their numbers begin, 3 how many bytes at most.
APPEND = """
import itertools, os, random, sys
from io import BytesIO
from pathlib import Path
from dicomrx.vault import State
from tests.unit.vault_files import content, original, put, who

state = State.open(Path(sys.argv[1]), create=True)
first, most = int(sys.argv[2]), int(sys.argv[3])
for number in itertools.count(first):
    data = content(number, random.Random(number).randrange(most))
    put(state, original(state.patient(who(f"patient {number % 3}")), f"2.25.{number}", data), BytesIO(data))
    os.write(1, f"{number}\\n".encode())
"""


def appended(number: int, most: int) -> bytes:
    return content(number, random.Random(number).randrange(most))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed state: a segment with three small records."""
    with State.open(tmp_path_factory.mktemp("filled") / "state", create=True) as state:
        for number in (1, 2, 3):
            data = content(number, 100 * number)
            put(state, original(state.patient(who("one")), f"2.25.{number}", data), io.BytesIO(data))
    return state.path


@pytest.fixture
def copy(filled: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(filled, tmp_path / "state"))


def segment(path: Path) -> Path:
    (found,) = (path / "vault").glob("*.seg")
    return found


@pytest.mark.parametrize("size", [0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME, 3 * FRAME + 5])
def test_an_original_of_any_size_comes_back_byte_for_byte(tmp_path: Path, size: int) -> None:
    data = content(1, size)
    with State.open(tmp_path / "state", create=True) as state:
        position = put(state, original(state.patient(who("one"))), io.BytesIO(data))
        assert position == (segment(state.path).name, segment(state.path).stat().st_size)
        assert restored(state, "2.25.3") == [data]
    with State.open(state.path, create=False) as reader:
        assert restored(reader, "2.25.3") == [data]


@pytest.mark.parametrize("begin", [0, 1, 300, FRAME, FRAME + 1])
@pytest.mark.parametrize("length", [1, 1024, FRAME - 1, FRAME, 2 * FRAME + 1])
@pytest.mark.parametrize("behind", [0, 8])
def test_pixels_are_not_kept_and_come_back_in_their_place(tmp_path: Path, begin: int, length: int, behind: int) -> None:
    pixels, data, dataset = range(begin, begin + length), content(1, begin + length + behind), min(begin, 200)
    file = io.BytesIO(b"another header" + data[pixels.start : pixels.stop] + b"another tail")
    with State.open(tmp_path / "state", create=True) as state:
        put(state, original(state.patient(who("one")), data=data, dataset=dataset, pixels=pixels), io.BytesIO(data))
        (record,) = state.vault.find("2.25.3")
        assert segment(state.path).stat().st_size < begin + behind + 1500
        out = io.BytesIO()
        file.seek(len(b"another header"))
        state.vault.restore(record, out, file)
        assert out.getvalue() == data
        for other in (b"", data[pixels.start : pixels.stop - 1], bytes(length)):
            with pytest.raises(PermissionRefused, match="pixels"):
                state.vault.restore(record, io.BytesIO(), io.BytesIO(other))
        with pytest.raises(NoInputError, match="pixels"):
            state.vault.restore(record, io.BytesIO())


@pytest.mark.parametrize(("before", "behind"), [(1, 0), (300, 12), (0, 9), (FRAME - 12, 12)])
@pytest.mark.parametrize(("begin", "tail"), [(300, 0), (0, 8), (FRAME + 1, 8)])
def test_an_outputs_own_bytes_tell_its_digest_and_are_no_part_of_the_original(
    tmp_path: Path, before: int, behind: int, begin: int, tail: int
) -> None:
    pixels, data = range(begin, begin + 2 * FRAME + 1), content(1, begin + 2 * FRAME + 1 + tail)
    own = Own(content(2, before), content(3, behind))
    file = io.BytesIO(data[pixels.start : pixels.stop].join(own))
    with State.open(tmp_path / "state", create=True) as state:
        one = original(state.patient(who("one")), data=data, output=own, dataset=begin // 2, pixels=pixels)
        put(state, one, io.BytesIO(data))
        (record,) = state.vault.find("2.25.3")
        assert (record.output_sha256, record.pixels_at) == (None, begin - begin // 2)
        digest = sha256(file.getvalue()).hexdigest()
        for given in (file.getvalue()[before:], data[begin:]):
            assert state.vault.output_sha256(record, partial(io.BytesIO, given)) == digest
        for given in (bytes(len(pixels)), data[begin + 1 :], b""):
            assert state.vault.output_sha256(record, partial(io.BytesIO, given)) not in {None, digest}
        assert state.vault.output_sha256(record, lambda: None) not in {None, digest}
        out = io.BytesIO()
        file.seek(before)
        state.vault.restore(record, out, file)
        assert out.getvalue() == data


def test_of_a_record_that_has_the_digest_the_pixels_are_not_asked(filled: Path) -> None:
    with State.open(filled, create=False) as state:
        (record,) = state.vault.find("2.25.2")
        assert state.vault.output_sha256(record, lambda: pytest.fail("asked")) == MADE


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_what_an_instance_had_comes_back_oldest_first(tmp_path_factory: pytest.TempPathFactory, originals: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("vault") / "state"
    for data in originals:  # each from another process's segment
        with State.open(path, create=True) as state:
            put(state, original(state.patient(who("one")), data=data), io.BytesIO(data))
    with State.open(path, create=True) as state:
        assert restored(state, "2.25.3") == originals
        assert state.vault.find("2.25.4") == []


def test_a_record_says_what_it_is_of(filled: Path) -> None:
    with State.open(filled, create=False) as state:
        (record,) = state.vault.find("2.25.2")
        wanted = original(state.patient(who("one")), "2.25.2", content(2, 200))
        assert (record.study, record.series, record.instance) == ("2.25.1", "2.25.2", "2.25.2")
        assert (record.patient, record.profile, record.output_sha256) == (1, "basic", wanted.output)
        assert record.same == state.vault.same(wanted)
        assert record.same != state.vault.same(original(state.patient(who("one")), "2.25.2", b"other"))


def test_the_segments_show_neither_content_nor_its_digests(filled: Path) -> None:
    raw = segment(filled).read_bytes()
    for number in (1, 2, 3):
        data = content(number, 100 * number)
        assert data[:16] not in raw
        assert sha256(data).hexdigest().encode() not in raw
        assert sha256(data).digest() not in raw


def test_equal_originals_look_different(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        ends = [put(state, original(state.patient(who("one")), f"2.25.{n}"), io.BytesIO(bytes(64))).end for n in (1, 2)]
        raw = segment(state.path).read_bytes()
    assert raw[ends[0] - 64 : ends[0]] != raw[ends[1] - 64 : ends[1]]


def test_every_tampered_byte_is_refused_and_costs_one_record(copy: Path) -> None:
    with State.open(copy, create=False) as state:
        key = state.patient(who("one")).data_key
        first, middle, last = (state.vault.find(f"2.25.{number}")[0].location for number in (1, 2, 3))
    path = segment(copy)
    whole = path.read_bytes()
    for at in range(middle.start, middle.end):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        found = list(scan(path, 0, grows=False))
        assert first in found
        assert last in found
        with pytest.raises(PermissionRefused):
            decrypt(path, middle, key, io.BytesIO())
        for location in {*found} - {first, last}:
            with pytest.raises(PermissionRefused):
                decrypt(path, location, key, io.BytesIO())
    path.write_bytes(whole)
    decrypt(path, middle, key, io.BytesIO())


def test_every_tampered_byte_of_an_outputs_own_bytes_is_refused(tmp_path: Path) -> None:
    data, pixels = content(1, 3000), range(500, 2500)
    with State.open(tmp_path / "state", create=True) as state:
        patient = state.patient(who("one"))
        put(state, original(patient, data=data, output=Own(content(2, 200), content(3, 20)), pixels=pixels), io.BytesIO(data))
        put(state, original(patient, "2.25.4"), io.BytesIO(data))
        (record,) = state.vault.find("2.25.3")
    path = segment(state.path)
    whole = path.read_bytes()
    head, parts = frames(whole)
    end = len(head) + len(parts[0])
    for at in range(record.location.end):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(PermissionRefused):
            decrypt(path, record.location, patient.data_key, io.BytesIO(), io.BytesIO(data[500:]))
        if at < end:
            with pytest.raises(PermissionRefused):
                output_sha256(path, record.location, patient.data_key, lambda: io.BytesIO(data[500:]))
    path.write_bytes(whole)
    assert output_sha256(path, record.location, patient.data_key, lambda: io.BytesIO(data[500:]))


def frames(whole: bytes) -> tuple[bytes, list[bytes]]:
    """A segment's only record: up to its frames, and these."""
    at = whole.index(b"}") + 1
    head, found = whole[:at], []
    while at < len(whole):
        end = at + 4 + (int.from_bytes(whole[at : at + 4], "big") & 0x7FFFFFFF)
        found.append(whole[at:end])
        at = end
    return head, found


# Of a record of three: two of content, or of the output's own bytes and of content, then the proof.
@pytest.mark.parametrize("order", [[0, 2], [1, 2], [2], [1, 0, 2], [0, 1], [0, 0, 1, 2], [0, 1, 1, 2], [0, 1, 2, 2], [0, 2, 1]])
@pytest.mark.parametrize(
    ("pixels", "size", "output"),
    [
        (range(0), 2 * FRAME, MADE),
        (range(FRAME, FRAME + 5000), 2 * FRAME + 5000, MADE),
        (range(FRAME, FRAME + 5000), FRAME + 5000, Own(b"own", b"bytes")),
    ],
)
def test_frames_dropped_swapped_or_doubled_are_refused(
    tmp_path: Path, order: list[int], pixels: range, size: int, output: str | Own
) -> None:
    data = content(1, size)
    with State.open(tmp_path / "state", create=True) as state:
        put(state, original(state.patient(who("one")), data=data, output=output, pixels=pixels), io.BytesIO(data))
        (record,) = state.vault.find("2.25.3")
        head, parts = frames(segment(state.path).read_bytes())
        assert len(parts) == 3
        segment(state.path).write_bytes(head + b"".join(parts[number] for number in order))
        out, given = io.BytesIO(), io.BytesIO(data[pixels.start : pixels.stop])
        if order == [0, 1, 2, 2]:  # what is behind the proof belongs to nobody
            state.vault.restore(record, out, given)
            assert out.getvalue() == data
            return
        with pytest.raises(PermissionRefused, match="tampered"):
            state.vault.restore(record, out, given)


def test_a_frame_of_content_cannot_be_made_the_end(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        put(state, original(state.patient(who("one"))), io.BytesIO(bytes(2 * FRAME)))
        (record,) = state.vault.find("2.25.3")
        head, (first, second, proof) = frames(segment(state.path).read_bytes())
        segment(state.path).write_bytes(head + first + bytes([second[0] | 0x80]) + second[1:] + proof)
        with pytest.raises(PermissionRefused):
            state.vault.restore(record, io.BytesIO())


def test_a_record_moved_under_another_header_is_refused(copy: Path) -> None:
    path = segment(copy)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"instance": "2.25.1"', b'"instance": "2.25.9"', 1))
    (copy / "vault" / "index.sqlite").unlink()
    with State.open(copy, create=False) as state, pytest.raises(PermissionRefused, match="tampered"):
        restored(state, "2.25.9")


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (b'"order": 0', b'"order": x'),
        (b'"order": 0', b'"order":""'),
        (b'"patient": 1,', b'"patient":"",'),
        (b'"patient": 1,', b'"patient":9e9'),
        (b'"study": "2.25.1"', b'"study":123456789'),
        (b'"same": "', b'"sama": "'),
    ],
)
def test_a_record_whose_header_is_not_as_it_was_written_is_none_and_hides_no_other(copy: Path, said: bytes, says: bytes) -> None:
    path = segment(copy)
    whole = path.read_bytes()
    assert said in whole
    path.write_bytes(whole.replace(said, says, 1))
    (copy / "vault" / "index.sqlite").unlink()
    for create in (True, False):  # from the segment, then from the index that was made of it
        with State.open(copy, create=create) as state:
            assert state.vault.find("2.25.1") == []
            assert restored(state, "2.25.2") == [content(2, 200)]
            assert state.vault.studies(1) == {"2.25.1"}


def test_another_patients_key_does_not_open_a_record(filled: Path) -> None:
    with State.open(filled, create=False) as state:
        location = state.vault.find("2.25.1")[0].location
    with pytest.raises(PermissionRefused):
        decrypt(segment(filled), location, bytes(32), io.BytesIO())


def test_a_record_of_another_version_says_so(copy: Path) -> None:
    path = segment(copy)
    path.write_bytes(path.read_bytes().replace(b'"version": 4', b'"version": 1'))
    (copy / "vault" / "index.sqlite").unlink()
    with State.open(copy, create=False) as state, pytest.raises(PermissionRefused, match="another version"):
        restored(state, "2.25.1")


def by_hand(state: State, data: bytes, pixels: range, facts: dict[str, str], own: bytes = b"", **more: int | str | None) -> Record:
    """A record as its description says, with these facts, the output's own bytes if there are any, and more in its header."""
    patient, salt = state.patient(who("one")), bytes(16)
    one = original(patient)
    header = {"study": one.study, "series": one.series, "instance": one.instance, "patient": 1, "profile": "basic", "order": 0}
    clear = json.dumps(
        {**header, "same": "", "output_sha256": MADE, "pixels": [pixels.start, pixels.stop], "salt": salt.hex(), **more}
    ).encode()
    kept = [zlib.compress(part) for part in (own, data[: pixels.start], data[pixels.stop :]) if part]
    cipher, raw = AESGCM(record_key(patient.data_key, salt)), b"DXR1" + len(clear).to_bytes(4, "big") + clear
    for number, plain in enumerate([*kept, json.dumps({**facts, "size": len(data)}).encode()]):
        last = number == len(kept)
        sealed = cipher.encrypt(number.to_bytes(11, "big") + bytes([last]), plain, clear)
        raw += (len(sealed) | last << 31).to_bytes(4, "big") + sealed
    (state.path / "vault" / "0123456789abcdef.seg").write_bytes(raw)
    (record,) = state.vault.find(one.instance)
    return record


@pytest.mark.parametrize("pixels", [range(0), range(300, 5000)])
def test_a_record_of_the_version_before_comes_back(tmp_path: Path, pixels: range) -> None:
    """It has one SHA-256 of the whole original, and no word of where its data set begins."""
    data, out = content(1, 6000), io.BytesIO()
    with State.open(tmp_path / "state", create=True) as state:
        record = by_hand(state, data, pixels, {"sha256": sha256(data).hexdigest()}, version=2)
        state.vault.restore(record, out, io.BytesIO(data[pixels.start : pixels.stop]))
        assert out.getvalue() == data
        if pixels:
            with pytest.raises(PermissionRefused, match="pixels"):
                state.vault.restore(record, io.BytesIO(), io.BytesIO(bytes(len(pixels))))


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("wrong", ["", "head_sha256", "dataset_sha256"])
def test_head_and_data_set_are_both_proven(tmp_path: Path, wrong: str, version: int) -> None:
    data, out = content(1, 6000), io.BytesIO()
    facts = {"head_sha256": sha256(data[:100]).hexdigest(), "dataset_sha256": sha256(data[100:]).hexdigest()}
    if wrong:
        facts[wrong] = sha256(b"other").hexdigest()
    with State.open(tmp_path / "state", create=True) as state:
        record = by_hand(state, data, range(0), facts, version=version, dataset=100)
        assert state.vault.output_sha256(record, lambda: None) == MADE
        if wrong:
            with pytest.raises(PermissionRefused, match="tampered"):
                state.vault.restore(record, out)
        else:
            state.vault.restore(record, out)
            assert out.getvalue() == data


def test_a_record_with_an_outputs_own_bytes_is_what_its_description_says(tmp_path: Path) -> None:
    data, pixels, out = content(1, 6000), range(300, 5000), io.BytesIO()
    facts = {"head_sha256": sha256(data[:100]).hexdigest(), "dataset_sha256": sha256(data[100:]).hexdigest()}
    more = {"version": 4, "dataset": 100, "output_sha256": None, "before": 3}
    with State.open(tmp_path / "state", create=True) as state:
        record = by_hand(state, data, pixels, facts, b"ownbytes", **more)
        made = b"own" + data[300:5000] + b"bytes"
        assert state.vault.output_sha256(record, lambda: io.BytesIO(data[300:])) == sha256(made).hexdigest()
        state.vault.restore(record, out, io.BytesIO(data[300:]))
        assert out.getvalue() == data


def test_a_data_set_that_is_not_what_was_said_of_it_is_not_given_back(tmp_path: Path) -> None:
    """The vault does not read all of it: whoever wrote the output has told its digest."""
    data = content(1, 500)
    with State.open(tmp_path / "state", create=True) as state:
        state.vault.append(original(state.patient(who("one")), data=data, dataset=100), io.BytesIO(data[:-1] + b"?"), 0)
        state.vault.sync()
        with pytest.raises(PermissionRefused, match="tampered"):
            restored(state, "2.25.3")


def test_a_forgotten_patients_originals_are_gone(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        for name, instance in (("one", "2.25.1"), ("two", "2.25.2")):
            put(state, original(state.patient(who(name)), instance), io.BytesIO(b"original"))
        import sqlite3

        database = sqlite3.connect(state.path / "identities.sqlite")
        with database:
            database.execute("DELETE FROM patients WHERE number = 1")
        database.close()
        with pytest.raises(PermissionRefused, match="sub-001 was forgotten"):
            restored(state, "2.25.1")
        assert restored(state, "2.25.2") == [b"original"]


@pytest.mark.crash
def test_a_writer_killed_at_any_moment_loses_nothing_it_had_promised(tmp_path: Path) -> None:
    dice, most, promised = random.Random(3), 2 * FRAME + 9, []
    with State.open(tmp_path / "state", create=True) as beside:
        for begin in (1000, 2000, 3000, 4000):
            with child(APPEND, beside.path, begin, most) as process:
                assert process.stdout is not None
                promised.append(int(process.stdout.readline()))
                time.sleep(dice.uniform(0, 0.2))
                process.send_signal(signal.SIGKILL)
                promised += map(int, process.communicate()[0].split())
            assert process.returncode == -signal.SIGKILL
            assert restored(beside, f"2.25.{promised[-1]}") == [appended(promised[-1], most)]
        put(beside, original(beside.patient(who("one")), "2.25.1"), io.BytesIO(b"after"))
        assert restored(beside, "2.25.1") == [b"after"]
    (beside.path / "vault" / "index.sqlite").unlink()
    with State.open(beside.path, create=True) as state:
        for number in promised:
            assert restored(state, f"2.25.{number}") == [appended(number, most)]


@pytest.mark.parametrize("create", [True, False])
def test_records_of_living_processes_are_found_at_once(tmp_path: Path, create: bool) -> None:
    with State.open(tmp_path / "state", create=True):
        pass
    with (
        State.open(tmp_path / "state", create=create) as beside,
        child(APPEND, beside.path, 1000, 500) as one,
        child(APPEND, beside.path, 2000, 500) as two,
    ):
        for _ in range(30):
            for process in (one, two):
                assert process.stdout is not None
                number = int(process.stdout.readline())
                assert restored(beside, f"2.25.{number}") == [appended(number, 500)]


def test_an_unfinished_record_is_not_seen_until_it_is_whole(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state, State.open(tmp_path / "state", create=False) as reader:
        looks: list[list[Record]] = []

        class Slow(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                looks.append(reader.vault.find("2.25.3"))
                return super().read(size)

        put(state, original(state.patient(who("one"))), Slow(content(1, 3 * FRAME)))
        assert looks == [[], [], [], []]
        assert len(reader.vault.find("2.25.3")) == 1


def test_a_segment_that_comes_in_the_same_tick_is_seen(tmp_path: Path) -> None:
    """A file system's clock may tick by the hundredth of a second: two changes of a folder then bear one time."""
    with State.open(tmp_path / "state", create=True) as state, State.open(tmp_path / "state", create=True) as beside:
        folder = state.path / "vault"
        assert beside.vault.find("2.25.3") == []
        before = folder.stat()
        put(state, original(state.patient(who("one"))), io.BytesIO(b"original"))
        os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert len(beside.vault.find("2.25.3")) == 1


def test_without_its_index_the_vault_loses_nothing(copy: Path) -> None:
    (copy / "vault" / "index.sqlite").unlink()
    for create in (False, True, True):
        with State.open(copy, create=create) as state:
            assert [restored(state, f"2.25.{number}") for number in (1, 2, 3)] == [[content(number, 100 * number)] for number in (1, 2, 3)]


def test_what_another_process_has_written_to_the_index_is_not_written_again(tmp_path: Path) -> None:
    """Each worker reads the records of all the others: to write them, too, would cost the more, the more there are."""
    with State.open(tmp_path / "state", create=True) as beside:
        with State.open(tmp_path / "state", create=True) as state:
            for number in range(20):
                put(state, original(state.patient(who("one")), f"2.25.{number}"), io.BytesIO(b"original"))
            assert len(beside.vault.find("2.25.7")) == 1
        put(beside, original(beside.patient(who("one")), "2.25.20"), io.BytesIO(b"original"))
        statements: list[str] = []
        index = beside.vault._index._database
        assert index is not None
        index.set_trace_callback(statements.append)
    assert sum(statement.startswith("INSERT OR REPLACE INTO records") for statement in statements) == 1
    with State.open(tmp_path / "state", create=True) as state:
        assert [len(state.vault.find(f"2.25.{number}")) for number in range(21)] == [1] * 21


def test_an_index_that_an_earlier_version_wrote_in_another_order_is_used(copy: Path) -> None:
    index = copy / "vault" / "index.sqlite"
    with contextlib.closing(sqlite3.connect(index)) as database, database:
        for rowid, header in database.execute("SELECT start, header FROM records").fetchall():
            shuffled = json.dumps(dict(reversed(json.loads(header).items())))
            assert shuffled != header
            database.execute("UPDATE records SET header = ? WHERE start = ?", (shuffled, rowid))
    with State.open(copy, create=False) as state:
        assert [restored(state, f"2.25.{number}") for number in (1, 2, 3)] == [[content(number, 100 * number)] for number in (1, 2, 3)]


def test_a_reader_makes_no_index(copy: Path) -> None:
    index = copy / "vault" / "index.sqlite"
    index.unlink()
    with State.open(copy, create=False) as state:
        assert restored(state, "2.25.1")
    assert not index.exists()


def test_a_broken_index_stops_the_writer_with_a_word_and_no_reader(copy: Path) -> None:
    (copy / "vault" / "index.sqlite").write_bytes(b"x" * 8192)
    with State.open(copy, create=False) as state:
        assert restored(state, "2.25.1") == [content(1, 100)]
    with pytest.raises(ConfigError, match="delete it"):
        State.open(copy, create=True)


def test_an_index_newer_than_the_segments_finds_only_what_is_there(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        put(state, original(state.patient(who("one")), "2.25.1"), io.BytesIO(b"old"))
        older = segment(state.path).read_bytes()
        put(state, original(state.patient(who("one")), "2.25.2"), io.BytesIO(b"new"))
        state.vault.find("2.25.2")
    segment(state.path).write_bytes(older)
    with State.open(state.path, create=True) as state:
        assert state.vault.find("2.25.2") == []
        assert restored(state, "2.25.1") == [b"old"]


def test_the_index_is_written_by_the_thousand_and_answers_as_before(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        patient = state.patient(who("one"))
        for number in range(2100):
            state.vault.append(original(patient, f"2.25.{number}", b"%d" % number), io.BytesIO(b"%d" % number), 0)
        state.vault.sync()
        assert restored(state, "2.25.7") == [b"7"]
        assert restored(state, "2.25.2099") == [b"2099"]
        assert len(state.vault._index._fresh) <= 100
    with State.open(tmp_path / "state", create=True) as state:
        assert restored(state, "2.25.2099") == [b"2099"]
        assert not state.vault._index._growing
        assert not state.vault._index._fresh, "nothing was read twice"


@pytest.mark.parametrize("pixels", [range(0), range(FRAME // 2, 49 * FRAME)])
def test_memory_stays_flat_for_a_large_original(tmp_path: Path, pixels: range) -> None:
    size = 50 * FRAME

    class Endless(io.RawIOBase):
        left = size

        def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
            assert whence == io.SEEK_SET
            self.left = size - offset
            return offset

        def tell(self) -> int:
            return size - self.left

        def read(self, count: int = -1, /) -> bytes:
            taken = min(self.left, count)
            self.left -= taken
            return bytes(taken)

    class Sink(io.RawIOBase):
        got = 0

        def write(self, data: bytes, /) -> int:  # type: ignore[override]
            self.got += len(data)
            return len(data)

    with State.open(tmp_path / "state", create=True) as state:
        one, sink = original(state.patient(who("one")), data=bytes(size), pixels=pixels), Sink()
        tracemalloc.start()
        try:
            state.vault.append(one, Endless(), 0)  # type: ignore[arg-type]
            state.vault.sync()
            state.vault.restore(state.vault.find("2.25.3")[0], sink, Endless())  # type: ignore[arg-type]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert sink.got == size
    assert peak < 8 * FRAME


class Broken(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise OSError(5, "broken")
        return data


def test_an_original_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state, State.open(tmp_path / "state", create=False) as beside:
        put(state, original(state.patient(who("one")), "2.25.1"), io.BytesIO(b"before"))
        size = segment(state.path).stat().st_size
        with pytest.raises(OSError, match="broken"):
            put(state, original(state.patient(who("one")), "2.25.2"), Broken(bytes(2 * FRAME)))
        assert segment(state.path).stat().st_size == size
        put(state, original(state.patient(who("one")), "2.25.2"), io.BytesIO(b"after"))
        for one in (state, beside):
            assert [restored(one, f"2.25.{number}") for number in (1, 2)] == [[b"before"], [b"after"]]


def test_a_batch_that_is_lost_is_not_called_durable(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        put(state, original(state.patient(who("one")), "2.25.1"), io.BytesIO(b"kept"))
        state.vault.append(original(state.patient(who("one")), "2.25.2"), io.BytesIO(b"lost"), 0)
        with pytest.raises(OSError, match="broken"):
            state.vault.append(original(state.patient(who("one")), "2.25.3"), Broken(b"torn"), 0)
        with pytest.raises(OSError, match="vault"):
            state.vault.sync()
        state.vault.append(original(state.patient(who("one")), "2.25.2", b"again"), io.BytesIO(b"again"), 0)
        state.vault.sync()
        assert [restored(state, f"2.25.{number}") for number in (1, 2, 3)] == [[b"kept"], [b"again"], []]


SYNCED = """
import os, sys
from io import BytesIO
from pathlib import Path
from dicomrx.vault import State
from tests.unit.vault_files import original, put, who

state = State.open(Path(sys.argv[1]), create=True)
patient = state.patient(who("one"))
if sys.argv[2] == "append":
    put(state, original(patient), BytesIO(b"original"))
if sys.argv[2] == "batch":
    state.vault.append(original(patient), BytesIO(b"original"), 0)
    state.vault.append(original(patient, "2.25.4"), BytesIO(b"original"), 0)
    state.vault.sync()
if sys.argv[2] == "find":
    state.vault.find("2.25.3")
os.write(1, b"durable\\n")
"""


@pytest.mark.needs_tool("strace")
@pytest.mark.parametrize("how", ["append", "batch", "find"])
def test_a_record_is_on_disk_before_it_is_relied_on(tmp_path: Path, how: str) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        if how == "find":  # what a dead writer left unsynced
            state.vault.append(original(state.patient(who("one")), data=b"original"), io.BytesIO(b"original"), 0)
            assert state.vault._writer is not None
            state.vault._writer._write()
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "--seccomp-bpf", "-y", "-e", "trace=write,fsync", "-o", str(trace)]
    subprocess.run([*strace, sys.executable, "-c", SYNCED, str(state.path), how], check=True, stdout=subprocess.DEVNULL)
    lines = trace.read_text().splitlines()
    (relied,) = (number for number, line in enumerate(lines) if '"durable' in line)
    # strace calls a segment by the name under which it was made and locked, .part
    calls = [match[1] for line in lines[:relied] if (match := re.search(r"(write|fsync)\(\d+<[^>]*\.(?:seg|part)\b", line))]
    assert calls[-1] == "fsync"
    assert calls.count("fsync") == 1


def test_a_full_disk_is_said_by_append_and_later_records_are_good(tmp_path: Path) -> None:
    script = (
        "import io, os, resource, signal, sys; from pathlib import Path; from dicomrx.vault import State\n"
        "from tests.unit.vault_files import original, put, restored, who\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "state = State.open(Path(sys.argv[1]), create=True); patient = state.patient(who('one'))\n"
        "put(state, original(patient, '2.25.1'), io.BytesIO(b'before'))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))\n"
        "try:\n    put(state, original(patient, '2.25.2'), io.BytesIO(os.urandom(3 << 20)))\n"
        "except OSError:\n    pass\n"
        "else:\n    sys.exit('no error')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "put(state, original(patient, '2.25.3'), io.BytesIO(b'after'))\n"
        "assert [restored(state, f'2.25.{n}') for n in (1, 2, 3)] == [[b'before'], [], [b'after']]\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "state"], check=True)
    assert len(list((tmp_path / "state" / "vault").glob("*.seg"))) == 2


def test_segments_are_the_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with State.open(tmp_path / "state", create=True) as state:
            put(state, original(state.patient(who("one"))), io.BytesIO(b"original"))
    finally:
        os.umask(before)
    files = [path for path in (state.path / "vault").iterdir() if path.suffix in {".seg", ".sqlite"}]
    assert [path.stat().st_mode & 0o077 for path in files] == [0, 0]
