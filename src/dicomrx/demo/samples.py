"""What the demo sends: pydicom's bundled files, and what is expected to become of each, decided here and not by the pipeline."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

import pydicom.data
from pydicom import dcmread

from dicomrx.network.filemeta import FileMeta, read_meta

UPLOADED: Final = "uploaded"
REFUSED: Final = "refused"
CONFLICT: Final = "conflict"

# What is not expected to be uploaded: reason -> (why, names below pydicom's data folder).
EXCEPTIONS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    REFUSED: ("a directory of media is no storage class", ("*/DICOMDIR*",)),
    "burned-in": (
        "ultrasound and captures: the pixels may name the patient",
        (
            *(f"charset_files/chr{name}.dcm" for name in ("Arab", "Fren", "FrenMulti", "Germ", "Greek", "H31", "H32", "Hbrw")),
            *(f"charset_files/chr{name}.dcm" for name in ("I2", "Russ", "X1", "X2")),
            "test_files/ExplVR_BigEnd.dcm",
            "test_files/GDCMJ2K_TextGBR.dcm",
            "test_files/JPEG-lossy.dcm",
            "test_files/JPEG2000-embedded-sequence-delimiter.dcm",
            "test_files/JPEG2000.dcm",
            "test_files/JPGExtended.dcm",
            "test_files/SC_jpeg_no_color_transform*.dcm",
            "test_files/SC_rgb_dcmtk_*.dcm",
            "test_files/SC_rgb_gdcm_KY.dcm",
            "test_files/SC_rgb_jpeg_*.dcm",
            "test_files/SC_rgb_rle*.dcm",
            "test_files/SC_rgb_small_odd*.dcm",
            "test_files/SC_ybr_full_422_uncompressed.dcm",
            "test_files/examples_jpeg2k.dcm",
            "test_files/examples_palette.dcm",
            "test_files/examples_rgb_color.dcm",
            "test_files/examples_ybr_color.dcm",
            "test_files/image_dfl.dcm",
        ),
    ),
    "no-uid": (
        "no UID of its own or of its study",
        (
            "charset_files/chrSQEncoding*.dcm",
            *(f"palettes/{name}.dcm" for name in ("fall", "hotiron", "hotmetalblue", "pet", "pet20step", "spring", "summer")),
            "test_files/JPEGLSNearLossless_*.dcm",
            "test_files/SC_rgb_jls_lossy_*.dcm",
            "test_files/UN_sequence.dcm",
            "test_files/no_meta_group_length.dcm",
            "test_files/priv_SQ.dcm",
        ),
    ),
    "unreadable": (
        "an element twice, or implicit VR sent as explicit",
        ("palettes/winter.dcm", "test_files/SC_rgb_jpeg.dcm"),
    ),
    "truncated": ("it ends inside an element", ("test_files/MR_truncated.dcm", "test_files/rtplan_truncated.dcm")),
    "malformed": ("its number of frames is no number", ("test_files/badVR.dcm",)),
}
CONFLICT_WHY: Final = "another image with the same UID came first"

# Parts of names that are words of the standard too (a value type, a coding scheme): name -> words not searched for.
ORDINARY_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "test_files/reportsi.dcm": frozenset({"text"}),
    "test_files/reportsi_with_empty_number_tags.dcm": frozenset({"text"}),
    "test_files/test-SR.dcm": frozenset({"test"}),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One file to send.

    `key` is that of its content. `uids` (Study, Series, SOP Instance) and `patient` (ID and its issuer, empty without an ID) are
    read only where it is to be uploaded.
    """

    number: int
    path: Path
    name: str
    key: str
    expected: str
    uids: tuple[str, str, str] = ("", "", "")
    patient: str = ""

    @property
    def label(self) -> str:
        """What a report calls it: nothing of what it says."""
        return f"instance {self.number} ({self.key[:12]})"


def bundled() -> list[Sample]:
    """Every DICOM file with file meta that came with pydicom; nothing is ever downloaded."""
    folder = Path(pydicom.data.__file__).parent
    files = [(path, meta) for path in sorted(folder.rglob("*")) if path.is_file() and (meta := _meta(path))]
    return [_sample(number, path, path.relative_to(folder).as_posix()) for number, (path, _) in enumerate(files, 1)]


def _sample(number: int, path: Path, name: str) -> Sample:
    expected = next(_reasons(name), UPLOADED)
    sample = Sample(number, path, name, content_key(path), expected)
    if expected != UPLOADED:
        return sample
    dataset = dcmread(path, stop_before_pixels=True)
    patient = f"{dataset.PatientID}^{dataset.get('IssuerOfPatientID', '')}" if dataset.get("PatientID") else ""
    uids = (str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID))
    return replace(sample, uids=uids, patient=patient)


def _reasons(name: str) -> Iterator[str]:
    for reason, (_, patterns) in EXCEPTIONS.items():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            yield reason


def _meta(path: Path) -> FileMeta | None:
    with path.open("rb") as file:
        return read_meta(file)


def content_key(path: Path) -> str:
    """What two files with the same content share: SHA-256 of what C-STORE carries, data set, transfer syntax and UIDs."""
    with path.open("rb") as file:
        return key_of(file)


def key_of(file: BinaryIO) -> str:
    """The key of an open file; raises ValueError where it has no file meta."""
    file.seek(0)
    meta = read_meta(file)
    if meta is None:
        msg = "no file meta"
        raise ValueError(msg)
    file.seek(meta.offset)
    head = f"{meta.sop_class} {meta.sop_instance} {meta.transfer_syntax} ".encode()
    return sha256(head + file.read()).hexdigest()
