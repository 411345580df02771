"""What a series has in common is worked out once: whatever comes, the same comes out as without a memory."""

import io
import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomrx.deid import Context, Memory, Profile, check, deidentify, look_again, named_profile, read, write
from dicomrx.deid.dataset import DataSet
from dicomrx.deid.structure import Parser
from dicomrx.errors import Reject
from tests.unit.deid_files import BIG_ENDIAN, CONTEXT, EXPLICIT, IMPLICIT, PROFILES, bundled, element, file_of, item, joined, needed, tag_of
from tests.unit.test_deid_fuzz import CREATORS, EXAMPLES, VALUES, any_element

OTHER = replace(CONTEXT, pseudonym="sub-002", date_shift=777)
SOP, CHARSET, CONCEPT, TEXT, KERNEL = 0x00080018, 0x00080005, 0x0040A043, tag_of("ImageComments"), tag_of("ConvolutionKernel")
PATIENT = {
    tag_of("PatientName"): ("PN", b"Quixano^Alonso"),
    tag_of("PatientID"): ("LO", b"HID-778899"),
    tag_of("StudyDate"): ("DA", b"20210904"),
    tag_of("Manufacturer"): ("LO", b"Rocinante"),
    tag_of("KVP"): ("DS", b"120"),
    tag_of("ProtocolName"): ("LO", b"Head of Alonso"),
}


def outcome(file: bytes, context: Context, profile: Profile, memory: Memory | None = None) -> tuple[bytes, list[str]]:
    """The file that comes out, and where the second look had something to mend; where it is refused nothing, and why."""
    try:
        instance = read(io.BytesIO(file), memory)
        check(instance, "quarantine")
        output = deidentify(instance, context, profile)
        mended = look_again(instance, output, context.pseudonym, profile)
    except Reject as refused:
        return b"", [refused.reason]
    made = io.BytesIO()
    write(output, made)
    return made.getvalue(), sorted(mended)


def told(file: bytes, memory: Memory | None = None) -> tuple[object, ...]:
    """What an instance says of itself, and where its data set begins and ends; where it is refused, why."""
    stream = io.BytesIO(file)
    try:
        instance = read(stream, memory)
    except Reject as refused:
        return refused.reason, refused.detail
    uids = instance.sop_class, instance.study_uid, instance.series_uid, instance.sop_uid
    return uids, instance.identity, instance.transfer_syntax, instance.calling_ae, instance.dataset_offset, stream.tell()


def is_known(file: bytes, memory: Memory) -> bool:
    """True where it has elements in common with others, which are taken from the memory when it comes again."""
    return _are_halves_of_one(*(read(io.BytesIO(file), memory).dataset for _ in range(2)))


def is_meta_known(file: bytes, memory: Memory) -> bool:
    def meta() -> DataSet:
        parser = Parser(io.BytesIO(file))
        parser.skip(132)
        return memory.parse(parser, parser.meta_encoding(), 0x0002)

    return _are_halves_of_one(meta(), meta())


def _are_halves_of_one(first: DataSet, second: DataSet) -> bool:
    return first.halves is not None and second.halves is not None and first.halves[0] is second.halves[0]


def image(number: int, more: dict[int, bytes] | None = None, without: Iterable[int] = (), syntax: str = EXPLICIT) -> bytes:
    """One of a series."""
    parts = {tag: element(tag, *found, syntax) for tag, found in (needed() | PATIENT).items()}
    parts |= {SOP: element(SOP, "UI", f"1.2.3.4.3.{number}".encode(), syntax)} | (more or {})
    return file_of(b"".join(part for tag, part in sorted(parts.items()) if tag not in without), syntax)


@st.composite
def series(draw: st.DrawFn) -> list[bytes]:
    """Files that have most elements in common; what differs, lacks or is added is drawn for each."""
    syntax = draw(st.sampled_from((EXPLICIT, IMPLICIT, BIG_ENDIAN)))
    creators = {tag: element(tag, "LO", creator, syntax) for tag, creator in draw(st.lists(CREATORS, max_size=2))}
    base = creators | dict(draw(st.lists(any_element(syntax, 2), min_size=4, max_size=16)))
    base |= {tag: element(tag, vr, value, syntax) for tag, (vr, value) in needed().items()}
    differing = draw(st.lists(st.sampled_from(sorted(base)), max_size=4))
    made = []
    for number in range(draw(st.integers(3, 6))):
        changed = {tag: element(tag, draw(st.sampled_from(("LO", "UN"))), draw(VALUES), syntax) for tag in differing}
        parts = base | changed | {SOP: element(SOP, "UI", b"1.2.3.4.3.%d" % number, syntax)}
        if draw(st.integers(0, 3)) == 0:
            parts |= dict([draw(any_element(syntax, 2))])
            del parts[draw(st.sampled_from(sorted(parts)))]
        order = sorted(parts) if draw(st.integers(0, 9)) else draw(st.permutations(sorted(parts)))
        content = b"".join(parts[tag] for tag in order)
        made.append(file_of(content + element(0x7FE00010, "OW", b"\1\2" * number, syntax), syntax))
    return made


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(series(), st.lists(st.tuples(st.sampled_from((CONTEXT, OTHER)), st.sampled_from(PROFILES)), min_size=1, max_size=2))
def test_whatever_a_series_is_the_same_comes_out_as_without_a_memory(files: list[bytes], given: Sequence[tuple[Context, Profile]]) -> None:
    memory, other = Memory(), Memory()
    for number, file in enumerate(files * 2):
        context, profile = given[number % len(given)]
        assert outcome(file, context, profile, memory) == outcome(file, context, profile)
        assert told(file, other) == told(file)


# What may stand in file meta information: by tag, under which VR, which values.
META = {
    0x00020000: ("UL", (b"\xb0\0\0\0", b"\0\0\0\0")),
    0x00020001: ("OB", (b"\0\1",)),
    0x00020002: ("UI", (b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.4\0")),
    0x00020003: ("UI", (b"1.2.3.4.3.17", b"1.2.3.4.3.8\0", b"1.2.3.4.3.9\0", b"")),
    0x00020010: ("UI", (EXPLICIT.encode() + b"\0", IMPLICIT.encode() + b"\0", BIG_ENDIAN.encode() + b"\0", b"1.2.3\\4.5", b"")),
    0x00020013: ("SH", (b"ROCINANTE 1",)),
    0x00020016: ("AE", (b"CT1", b"MR22", b"")),
    0x00020102: ("OB", (b"\2\0\x10\0UI\2\0", b"\2\0\x16\0AE")),
}


@st.composite
def metas(draw: st.DrawFn) -> list[bytes]:
    """File meta of the images of a series: most of it the same, now and then out of order, twice, in implicit VR or followed by zeros."""
    base = {tag: draw(st.sampled_from(values)) for tag, (_, values) in META.items() if draw(st.integers(0, 9)) or tag == 0x00020010}
    differing = draw(st.sets(st.sampled_from(sorted(base)), max_size=2))
    made = []
    for _ in range(draw(st.integers(3, 6))):
        values = base | {tag: draw(st.sampled_from(META[tag][1])) for tag in differing}
        if draw(st.integers(0, 4)) == 0:
            values.pop(draw(st.sampled_from(sorted(META))), None)
        order = draw(st.permutations(sorted(values))) if draw(st.integers(0, 9)) == 0 else sorted(values)
        order += [draw(st.sampled_from(order))] if order and draw(st.integers(0, 9)) == 0 else []
        meta_syntax = IMPLICIT if draw(st.integers(0, 9)) == 0 else EXPLICIT
        syntax = values.get(0x00020010, b"").decode().strip("\0")
        meta = b"".join(element(tag, META[tag][0], values[tag], meta_syntax) for tag in order)
        meta += bytes(8) if draw(st.integers(0, 19)) == 0 else b""
        made.append(bytes(128) + b"DICM" + meta + joined(needed() | PATIENT, syntax if syntax in {IMPLICIT, BIG_ENDIAN} else EXPLICIT))
    return made


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(metas())
def test_whatever_the_file_meta_is_it_says_the_same_as_without_a_memory(files: list[bytes]) -> None:
    memory = Memory()
    for file in files * 2:
        assert told(file, memory) == told(file)


def test_of_the_file_meta_that_is_made_here_most_is_known_so_the_property_says_something() -> None:
    known: list[bool] = []

    @settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None, database=None)
    @given(metas())
    def collect(files: list[bytes]) -> None:
        memory = Memory()
        accepted = [file for file in files * 2 if len(told(file, memory)) > 2]
        known.extend(is_meta_known(file, memory) for file in accepted)

    collect()
    assert sum(known) > len(known) / 2


def test_most_of_what_is_made_here_is_known_so_the_property_says_something() -> None:
    known: list[bool] = []

    @settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None, derandomize=True)
    @given(series())
    def collect(files: list[bytes]) -> None:
        memory = Memory()
        accepted = (file for file in files * 2 if outcome(file, CONTEXT, PROFILES[0])[0])
        known.extend(is_known(file, memory) for file in accepted)

    collect()
    assert sum(known) > len(known) / 4


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.label)
def test_every_bundled_file_comes_out_the_same_as_one_of_a_series(profile: Profile) -> None:
    known = 0
    for path in bundled():
        first = path.read_bytes()
        try:
            uid = read(io.BytesIO(first)).sop_uid.encode()
        except Reject:
            continue
        memory = Memory()
        for end in b"123":
            file = first.replace(uid, uid[:-1] + bytes([end]))
            known += is_known(file, memory)
            assert outcome(file, CONTEXT, profile, memory) == outcome(file, CONTEXT, profile), path.name
    assert known > 150


def agrees(
    files: Iterable[bytes], profile: Profile = PROFILES[0], contexts: Sequence[Context] = (CONTEXT,)
) -> list[tuple[bytes, list[str]]]:
    """What comes out of files read with one memory, each of which is compared with what comes out without."""
    memory, other = Memory(), Memory()
    made = []
    for number, file in enumerate(files):
        context = contexts[number % len(contexts)]
        made.append(outcome(file, context, profile, memory))
        assert made[-1] == outcome(file, context, profile), number
        assert told(file, other) == told(file), number
    return made


def private(creator: bytes) -> dict[int, bytes]:
    """What may stay of one creator, ahead of what belongs to it: a number that is safe under ELSCINT1 alone."""
    return {0x00E10010: element(0x00E10010, "LO", creator), 0x00E11021: element(0x00E11021, "DS", b"12.5")}


def concept(code: bytes, syntax: str = EXPLICIT) -> dict[int, bytes]:
    """A content item at the top level that tells of what a code says."""
    coded = item(joined({tag_of("CodeValue"): ("SH", code)}, syntax), syntax)
    return {CONCEPT: element(CONCEPT, "SQ", coded, syntax), tag_of("Date"): element(tag_of("Date"), "DA", b"19470923", syntax)}


def accession(number: str) -> dict[int, bytes]:
    """What differs from image to image in no real series, and in these."""
    return {tag_of("AccessionNumber"): element(tag_of("AccessionNumber"), "SH", number.encode())}


def charset(term: bytes) -> dict[int, bytes]:
    return {CHARSET: element(CHARSET, "CS", term), KERNEL: element(KERNEL, "SH", b"B\xc3\xa4 30")}


@pytest.mark.parametrize(
    ("profile", "more", "less"),
    [
        ("basic", [charset(b"ISO_IR 192"), charset(b"ISO_IR 100"), charset(b"ISO_IR 6")], CHARSET),
        ("basic+retain-safe-private", [private(b"ELSCINT1"), private(b"ROCINANTE")], 0x00E10010),
        ("basic+full-dates", [concept(b"121031"), concept(b"111060")], CONCEPT),
    ],
    ids=["character set", "creator", "concept"],
)
def test_what_changes_how_others_are_judged_is_heeded(profile: str, more: list[dict[int, bytes]], less: int) -> None:
    """There from the begin, or in the third image first, or gone in it; the others are the same in all of them."""
    there = [image(number, parts) for number, parts in enumerate([more[0], more[0], *more, more[0], more[1]])]
    lacking = [image(number, more[0], without=[less]) for number in range(7, 10)]
    for files in (there, there + lacking, lacking + there):
        agrees(files, named_profile(profile))
    first, other = (agrees([file], named_profile(profile))[0][0] for file in (there[0], image(0, more[1])))
    assert first != other, "it changes nothing, and so proves nothing"


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_one_element_more_or_less_or_in_two_places_is_seen(syntax: str) -> None:
    text = element(TEXT, "LT", b"Nothing", syntax)
    twice = image(3, {TEXT: text + element(tag_of("KVP"), "DS", b"120", syntax)}, syntax=syntax)
    odd = [image(2, {TEXT: text}, syntax=syntax), image(2, without=[tag_of("KVP")], syntax=syntax), image(2, syntax=syntax)[:-4], twice]
    numbered = [{0x00200013: element(0x00200013, "IS", b"%d" % number, syntax)} for number in range(4)]
    ended = [image(number, {TEXT: text, **numbered[number]}, syntax=syntax) for number in range(3)]
    assert agrees([*ended, image(3, numbered[3], syntax=syntax) + bytes(16)])[3][0]
    for file in odd:
        made = agrees([image(0, syntax=syntax), image(1, syntax=syntax), file, image(4, syntax=syntax)])
        assert made[3][0]
    assert agrees([image(0, syntax=syntax), image(1, syntax=syntax), twice])[2] == (b"", ["unreadable"])


def test_what_is_mended_in_one_image_is_mended_in_all_and_what_only_one_asks_for_in_that_one() -> None:
    """A name stands in a description; a station is called as one image's number is."""
    items = {
        tag_of("ViewCodeSequence"): element(tag_of("ViewCodeSequence"), "SQ", item(element(tag_of("CodeMeaning"), "LO", b"Left Alonso")))
    }
    kernel = {KERNEL: element(KERNEL, "SH", b"B30 ACC27123")}
    made = agrees(image(number, items | kernel | accession(f"ACC{number}7123")) for number in range(5))
    told = [["CodeMeaning"], ["CodeMeaning"], ["CodeMeaning", "ConvolutionKernel"], ["CodeMeaning"], ["CodeMeaning"]]
    assert [mended for _, mended in made] == told
    assert b"Alonso" not in made[4][0]


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "where", "text"),
    [
        ("AccessionNumber", "SH", "ACC77123", "SequenceName", "of ACC77123"),
        ("AccessionNumber", "SH", "A-7", "SequenceName", "Rosa\\A 7"),
        ("AcquisitionDate", "DA", "20240517", "CodeValue", "20240517101112"),
        ("AcquisitionDate", "DA", "20240517", "SequenceName", "17 May 24"),
    ],
    ids=["a token", "a whole value", "a date in a date-time", "a date otherwise"],
)
def test_what_is_common_is_searched_for_what_only_one_image_asks_for(keyword: str, vr: str, value: str, where: str, text: str) -> None:
    common = {tag_of(where): element(tag_of(where), "SH", text.encode())}
    others = ["20230101", "20230102", value, "20230103"] if vr == "DA" else ["B1", "B2", value, "B3"]
    made = agrees(image(n, common | {tag_of(keyword): element(tag_of(keyword), vr, other.encode())}) for n, other in enumerate(others))
    assert [mended for _, mended in made] == [[], [], [where], []]


def test_what_differs_is_searched_for_what_is_common_and_for_what_differs() -> None:
    """Descriptions that hold the patient's name in one image, and this image's number in another."""
    words = ["B30", "B31", "B32 Alonso", "B33", "B34 ACC47123", "B35"]
    kernels = [{KERNEL: element(KERNEL, "SH", word.encode())} for word in words]
    made = agrees(image(number, kernel | accession(f"ACC{number}7123")) for number, kernel in enumerate(kernels))
    assert [mended for _, mended in made] == [[], [], ["ConvolutionKernel"], [], ["ConvolutionKernel"], []]


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_what_differs_is_searched_as_an_element_of_its_creator(syntax: str) -> None:
    creator = {0x00190010: element(0x00190010, "LO", b"GEMS_ACQU_01", syntax), 0x00191023: element(0x00191023, "DS", b"2.5", syntax)}
    texts = [{0x0019109E: element(0x0019109E, "LO", text, syntax)} for text in (b"Head 1", b"Head 2", b"Alonso 3", b"Head 4")]
    made = agrees((image(n, creator | text, syntax=syntax) for n, text in enumerate(texts)), named_profile("basic+retain-safe-private"))
    assert [mended for _, mended in made] == [[], [], ["(0019,109E)"], []]


def test_of_two_profiles_in_turn_each_seeks_what_it_removes() -> None:
    """The date of the study, which one of them keeps, stands in another spelling in what differs."""
    memory = Memory()
    for number in range(8):
        file = image(number, {KERNEL: element(KERNEL, "SH", b"4 Sep 21 %d" % number)})
        profile = named_profile(("basic", "basic+full-dates")[number % 2])
        mended = outcome(file, CONTEXT, profile, memory)[1]
        assert mended == outcome(file, CONTEXT, profile)[1] == [["ConvolutionKernel"], []][number % 2]


def test_the_words_that_only_one_image_names_go_from_its_descriptions() -> None:
    study = {tag_of("StudyDescription"): element(tag_of("StudyDescription"), "LO", b"Head Chest axial")}
    made = agrees(
        (image(number, study | accession(word)) for number, word in enumerate(("A", "B", "Chest", "C"))), named_profile("research")
    )
    assert [b"Head axial" in file for file, _ in made] == [False, False, True, False]


@pytest.mark.parametrize(
    ("keyword", "vr"),
    [
        ("PatientName", "PN"),
        ("PatientID", "LO"),
        ("IssuerOfPatientID", "LO"),
        ("PatientBirthDate", "DA"),
        ("StudyInstanceUID", "UI"),
        ("SOPClassUID", "UI"),
    ],
)
def test_whose_an_image_is_it_says_itself_where_it_differs(keyword: str, vr: str) -> None:
    """They share a series by mistake."""
    tag = tag_of(keyword)
    others = [{tag: element(tag, vr, b"1947092" + end)} for end in (b"3", b"3", b"4", b"3")]
    assert len({told(file) for file in [image(0, other) for other in others]}) == 2
    agrees(image(number, other) for number, other in enumerate(others))
    agrees(image(number, other) for number, other in enumerate((*others[1:], {}, others[0])))


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("BurnedInAnnotation", "CS", b"YES"),
        ("RecognizableVisualFeatures", "CS", b"YES"),
        ("ConversionType", "CS", b"DV"),
        ("Modality", "CS", b"US"),
        ("ImageType", "CS", b"DERIVED\\SCREEN SAVE"),
        ("SeriesDescription", "LO", b"Dose Report"),
        ("SOPClassUID", "UI", b"1.2.840.10008.5.1.4.1.1.7"),
        ("EncapsulatedDocument", "OB", b"%PDF"),
    ],
)
def test_the_one_image_of_a_series_that_is_a_risk_is_refused(keyword: str, vr: str, value: bytes) -> None:
    tag = tag_of(keyword)
    plain = {tag: element(tag, vr, b"1.2.840.10008.5.1.4.1.1.2")} if vr == "UI" else {}
    risky = {tag: element(tag, vr, value)}
    for parts in ([plain, plain, risky, plain], [plain, risky, plain, risky], [risky, risky, plain, risky]):
        made = agrees(image(number, part) for number, part in enumerate(parts))
        assert [file == b"" for file, _ in made] == [part is risky for part in parts]


def test_two_patients_in_turn_get_each_their_own() -> None:
    """They share a series by mistake, and nothing else that is made of it."""
    made = agrees([image(number) for number in range(8)], named_profile("research"), [CONTEXT, OTHER])
    assert b"sub-002" not in made[6][0] + made[4][0]
    assert b"sub-001" not in made[7][0] + made[5][0]


def of_series(number: int, more: dict[int, bytes]) -> bytes:
    """The same image in the series of this number."""
    return image(1, more | {0x0020000E: element(0x0020000E, "UI", f"1.2.3.9.{number}".encode())})


def private_ones(count: int) -> dict[int, bytes]:
    return {tag: element(tag, "LO", b"Value") for tag in range(0x00511000, 0x00511000 + count)}


def test_series_of_a_common_length_are_known_though_sixty_come_in_turn() -> None:
    """As from a hospital's modalities on a busy morning, or from a PACS over many associations."""
    memory = Memory()
    for number in [*range(60)] * 2:
        read(io.BytesIO(of_series(number, private_ones(160))), memory)
    assert all(is_known(of_series(number, private_ones(160)), memory) for number in range(60))
    memory.clear()
    assert not is_known(of_series(59, private_ones(160)), memory)


@pytest.mark.parametrize(
    ("more", "count"), [(private_ones(1500), 40), ({TEXT: element(TEXT, "LT", bytes(50_000))}, 1000)], ids=["many", "long"]
)
def test_what_a_memory_holds_of_the_latest_series_is_little(more: dict[int, bytes], count: int) -> None:
    memory = Memory()
    tracemalloc.start()
    try:
        for number in (number for number in range(count) for _ in range(2)):
            read(io.BytesIO(of_series(number, more)), memory)
        assert tracemalloc.get_traced_memory()[0] < 25e6
    finally:
        tracemalloc.stop()
    assert [is_known(of_series(number, more), memory) for number in (count - 1, 0)] == [True, False]


BIG = {tag_of("RedPaletteColorLookupTableData"): element(tag_of("RedPaletteColorLookupTableData"), "OW", b"\1\2" * 40000)}
INNER = {tag_of("RadiopharmaceuticalInformationSequence"): item(element(0x7FE00010, "OW", b"\1\2"))}
INNER = {tag: element(tag, "SQ", content) for tag, content in INNER.items()}


@pytest.mark.parametrize("more", [BIG, INNER], ids=["a big value", "pixels in an item"])
def test_what_is_left_in_a_file_is_read_from_the_file_of_each_image(more: dict[int, bytes]) -> None:
    memory = Memory()
    for number in range(4):
        stream = io.BytesIO(image(number, more))
        made = io.BytesIO()
        write(deidentify(read(stream, memory), CONTEXT), made)
        stream.close()
        assert made.getvalue() == outcome(image(number, more), CONTEXT, PROFILES[0])[0]
        assert b"\1\2" in made.getvalue()


def test_what_is_written_by_us_replaces_what_differs() -> None:
    removed = tag_of("PatientIdentityRemoved")
    made = agrees(image(number, {removed: element(removed, "CS", b"NO" * (number % 2))}) for number in range(4))
    assert all(element(removed, "CS", b"YES") in file for file, _ in made)


def test_pixels_before_what_is_known_end_the_data_set_as_ever() -> None:
    whole, known = image(2), element(tag_of("StudyDate"), "DA", b"20210904")
    odd = whole.replace(known, element(0x7FE00010, "OW", b"\1\2") + known)
    assert agrees([image(0), image(1), odd, image(3)])[2] == (b"", ["no-uid"])


@pytest.mark.parametrize("group", [0x0019, 0x0021], ids=["among what is common", "behind it"])
def test_of_two_kinds_of_image_in_a_series_the_one_that_comes_now_is_known(group: int) -> None:
    """As where a system writes one Series Instance UID into all it makes."""
    many = {(group << 16) + 0x1000 + n: element((group << 16) + 0x1000 + n, "DS", b"1") for n in range(40)}
    files = [image(number, many if 4 <= number < 8 else None) for number in range(12)]
    agrees(files)
    memory = Memory()
    assert [is_known(file, memory) for file in files] == [False, True, True, True] * 2 + [True] * 4


def test_of_a_header_of_thousands_of_elements_nothing_is_remembered() -> None:
    """It would take a hundred times its size."""
    many = {0x00211000 + n: element(0x00211000 + n, "US", b"\0\1") for n in range(2100)}
    memory = Memory()
    assert not any(is_known(image(number, many), memory) for number in range(3))
