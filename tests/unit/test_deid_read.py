"""What is read wholly, and what is refused with which word."""

import io
import logging
import struct
import zlib
from pathlib import Path

import pytest
from pydicom.charset import python_encoding

from dicomrx.deid import Instance, read, values
from dicomrx.deid.structure import MAX_DEPTH, WINDOW
from dicomrx.deid.tags import text_of
from dicomrx.errors import Reject
from tests.unit.deid_files import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    element,
    file_of,
    instance_of,
    item,
    joined,
    needed,
    tag_of,
)

NAME, ID, ISSUER, BIRTH, CHARSET = 0x00100010, 0x00100020, 0x00100021, 0x00100030, 0x00080005
PIXELS = element(0x7FE00010, "OW", b"\1\2\3\4")


def refused(file: bytes) -> Reject:
    with pytest.raises(Reject) as caught:
        read(io.BytesIO(file))
    return caught.value


def read_bytes(dataset: bytes, syntax: str = EXPLICIT) -> Instance:
    return read(io.BytesIO(file_of(dataset, syntax)))


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_the_originals_come_with_where_the_data_set_begins(syntax: str) -> None:
    dataset = joined(needed() | {NAME: ("PN", b"Quixano^Alonso^^^"), ID: ("LO", b"H1 "), BIRTH: ("DA", b"1947.09.23")}, syntax)
    file = file_of(dataset, syntax, calling=b"SCANNER ")
    instance = read(io.BytesIO(file))
    assert (instance.study_uid, instance.series_uid, instance.sop_uid) == ("1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3")
    assert (instance.transfer_syntax, instance.calling_ae) == (syntax, "SCANNER")
    assert file[instance.dataset_offset :] == dataset
    assert (instance.identity.name, instance.identity.patient_id, instance.identity.birth_date) == ("Quixano^Alonso", "H1", "19470923")


def test_an_identity_is_the_same_in_every_character_set_it_can_be_sent_in() -> None:
    names = {
        instance_of({CHARSET: ("CS", charset), NAME: ("PN", "Müller^Jürg".encode(codec))}).identity.name
        for charset, codec in ((b"ISO_IR 100", "latin-1"), (b"ISO_IR 192", "utf-8"), (b"GB18030", "gb18030"))
    }
    names.add(instance_of({CHARSET: ("CS", b"ISO_IR 192"), NAME: ("PN", "Mu\u0308ller^Ju\u0308rg".encode())}).identity.name)
    assert names == {"Müller^Jürg"}


def test_ascii_is_the_same_in_every_character_set() -> None:
    """So that it need not be asked which one it is."""
    ascii_ = bytes(range(0x1B)) + bytes(range(0x1C, 0x80))
    assert {values.decoded(ascii_, (term,)) for term in python_encoding} == {ascii_.decode("ascii")}


def test_two_names_that_no_set_decodes_stay_two() -> None:
    for charset, lead in ((b"ISO_IR 192", b""), (b"ISO_IR 192", b"\x1b$B"), (b"\\ISO 2022 IR 149", b"\x1b$)C"), (b"", b"\x1b$B")):
        names = (lead + b"\xff\xfe", lead + b"\xff\xfd")
        one, other = (instance_of({CHARSET: ("CS", charset), NAME: ("PN", raw)}).identity.name for raw in names)
        assert one != other


def test_a_name_that_switches_sets_by_escapes_is_decoded() -> None:
    raw = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"
    assert instance_of({CHARSET: ("CS", b"\\ISO 2022 IR 87"), NAME: ("PN", raw)}).identity.name == "Yamada^Tarou=山田^太郎"


@pytest.mark.parametrize("file", [b"", b"short", bytes(128) + b"NODI" + bytes(40), b"DICM" + bytes(200)])
def test_what_is_no_dicom_file_is_unreadable(file: bytes) -> None:
    assert refused(file).reason == "unreadable"


@pytest.mark.parametrize("syntax", ["", "Quixano", "1\\2.840.10008.1.2.1"])
def test_a_file_meta_without_a_transfer_syntax_is_unreadable(syntax: str) -> None:
    assert refused(file_of(joined(needed()), syntax)).reason == "unreadable"


@pytest.mark.parametrize("written", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_a_file_meta_in_implicit_vr_is_read_as_one_in_explicit_vr(written: str, syntax: str) -> None:
    meta = element(0x00020010, "UI", syntax.encode() + b"\0", written) + element(0x00020016, "AE", b"CT1", written)
    instance = read(io.BytesIO(bytes(128) + b"DICM" + meta + joined(needed(), syntax)))
    assert (instance.transfer_syntax, instance.calling_ae, instance.dataset_offset) == (syntax, "CT1", 132 + len(meta))


@pytest.mark.parametrize("tag", sorted(needed()))
@pytest.mark.parametrize("value", [None, b"", b"Quixano", b"1.2.3\\1.2.4", b"1." + b"2" * 64])
def test_an_instance_without_its_uids_is_no_instance(tag: int, value: bytes | None) -> None:
    elements = needed()
    del elements[tag]
    if value is not None:
        elements[tag] = ("UI", value)
    error = refused(file_of(joined(elements)))
    assert error.reason == "no-uid"
    assert "Quixano" not in str(error)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_cut_anywhere_a_file_is_never_read_as_if_it_were_whole(syntax: str) -> None:
    content = joined({tag_of("CodeMeaning"): ("LO", b"within")}, syntax)
    sequence = element(tag_of("RadiopharmaceuticalInformationSequence"), "SQ", item(content, syntax), syntax)
    dataset = joined(needed(), syntax) + sequence + element(0x7FE00010, "OW", b"\1\2\3\4\5\6\7\x08", syntax)
    whole = file_of(dataset, syntax)
    start = len(whole) - len(dataset)
    ordered = sorted(needed().items())
    borders = [len(joined(dict(ordered[:count]), syntax)) for count in range(5)]
    borders.append(borders[-1] + len(sequence))
    for cut in range(8, len(dataset)):
        begun = dataset[max(border for border in borders if border <= cut) : cut]
        if any(begun):  # nothing but zeros behind the last whole element is padding
            assert refused(whole[: start + cut]).reason == "truncated", cut


def test_pixel_data_shorter_than_it_says_is_truncated() -> None:
    error = refused(file_of(joined(needed()) + PIXELS[:-2]))
    assert (error.reason, "(7FE0,0010)" in error.detail) == ("truncated", True)


def test_encapsulated_pixel_data_without_its_delimiter_is_truncated() -> None:
    fragments = struct.pack("<HH2sxxI", 0x7FE0, 0x10, b"OB", 0xFFFFFFFF) + item(b"") + item(b"\xff\xd8")
    delimiter = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert refused(file_of(joined(needed()) + fragments, "1.2.840.10008.1.2.4.50")).reason == "truncated"
    assert read_bytes(joined(needed()) + fragments + delimiter, "1.2.840.10008.1.2.4.50").study_uid
    assert refused(file_of(joined(needed()) + fragments + delimiter)).reason == "unreadable"


@pytest.mark.parametrize("behind", [b"\0" * 3, b"\0" * 2048, b"Quixano", b"Quixano^Alonso was here", element(0xFFFCFFFC, "OB", b"Quixano")])
def test_bytes_behind_the_pixels_do_not_belong_to_the_data_set(behind: bytes) -> None:
    instance = read_bytes(joined(needed()) + PIXELS + behind)
    assert 0x7FE00010 in instance.dataset
    assert b"Quixano" not in b"".join(bytes(instance.dataset[tag].value) for tag in instance.dataset.keys() - {0xFFFCFFFC})


def test_sequences_too_deep_are_unreadable_and_shallow_ones_are_read() -> None:
    def chain(depth: int) -> bytes:
        content = b""
        for _ in range(depth):
            content = element(tag_of("RadiopharmaceuticalInformationSequence"), "SQ", item(content))
        return content

    assert read_bytes(joined(needed()) + chain(MAX_DEPTH)).study_uid
    assert refused(file_of(joined(needed()) + chain(MAX_DEPTH + 1))).reason == "unreadable"
    endless = struct.pack("<HH2sxxIHHI", 0x54, 0x16, b"SQ", 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) * 5000
    assert refused(file_of(joined(needed()) + endless)).reason == "unreadable"


def test_an_element_that_stands_twice_is_unreadable() -> None:
    twice = element(ID, "LO", b"one") + element(ID, "LO", b"two")
    assert refused(file_of(joined({tag: found for tag, found in needed().items() if tag < ID}) + twice)).reason == "unreadable"


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_bytes_of_a_value_that_is_read_out_of_step_are_in_no_message(syntax: str) -> None:
    name = b"QuixanoAlonsoDulcineaToboso "
    order = ">" if syntax == BIG_ENDIAN else "<"
    told = {text_of(group << 16 | number) for i in range(25) for group, number in [struct.unpack(f"{order}HH", name[i : i + 4])]}
    for cut in range(0, len(name), 2):  # the name says that it ends here; or it is a sequence's, or another name is in it
        early = element(NAME, "PN", name[:cut], syntax) + name[cut:]
        for broken in (early, element(0x00081140, "SQ", name[cut:], syntax), early + early):
            detail = refused(file_of(joined(needed(), syntax) + broken, syntax)).detail
            assert not any(each in detail for each in told), detail


def test_a_vr_that_does_not_exist_is_unreadable() -> None:
    assert refused(file_of(element(0x00080008, "QQ", b"X") + joined(needed()))).reason == "unreadable"


def test_a_deflated_data_set_is_read_and_a_cut_one_is_not() -> None:
    deflate = zlib.compressobj(wbits=-15)
    data = deflate.compress(joined(needed())) + deflate.flush()
    assert read_bytes(data, DEFLATED).study_uid == "1.2.3.4.1"
    for cut in range(9, len(data)):
        assert refused(file_of(data[:cut], DEFLATED)).reason == "truncated"
    assert refused(file_of(b"\xff" * 40, DEFLATED)).reason == "unreadable"


def test_a_deflated_bomb_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomrx.deid.reading.MAX_INFLATED", 1000)
    deflate = zlib.compressobj(wbits=-15)
    data = deflate.compress(joined(needed()) + bytes(100_000)) + deflate.flush()
    assert refused(file_of(data, DEFLATED)).reason == "unreadable"


def test_an_error_of_the_machine_is_not_taken_for_a_broken_file() -> None:
    class Disk(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= WINDOW:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(OSError, match="Input/output") as caught:
        read(Disk(file_of(element(0x00080008, "UT", b"A" * WINDOW) + joined(needed()) + PIXELS)))
    assert not isinstance(caught.value, Reject)


def test_pydicom_neither_warns_nor_logs_what_it_reads(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    caplog.set_level(logging.DEBUG)
    instance_of({CHARSET: ("CS", b"QUIXANO"), NAME: ("PN", b"\xfc" * 70), BIRTH: ("DA", b"no date")})
    assert not caplog.records
    assert not recwarn.list


def test_neither_an_instance_nor_its_identity_shows_itself(tmp_path: Path) -> None:
    instance = instance_of({NAME: ("PN", b"Quixano")})
    assert "Quixano" not in repr(instance) + str(instance) + repr(instance.identity) + str(instance.identity)


def test_every_character_set_that_pydicom_knows_is_read() -> None:
    for term in python_encoding:
        assert instance_of({CHARSET: ("CS", term.encode()), NAME: ("PN", b"Quixano")}).identity.name == "Quixano"
