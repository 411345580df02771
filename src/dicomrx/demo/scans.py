"""Images made for the hospital of `dicomrx demo --hospital`; which one an image is stands in its pixels, which no stage changes."""

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.1.2"  # CT Image Storage
SYNTAX: Final = str(ExplicitVRLittleEndian)
_ROOT: Final = "1.2.826.0.1.3680043.9.9998"
_LABEL: Final = struct.Struct("<4sIII")
_MAGIC: Final = b"scan"
_SIDE: Final = 16
_LARGE: Final = 512


class Scan(NamedTuple):
    """One image of the hospital, by the numbers of its study, its series and its own."""

    study: int
    series: int
    number: int

    @property
    def uid(self) -> str:
        """Its SOP Instance UID."""
        return f"{_ROOT}.{self.study}.{self.series}.{self.number}"


def scans(study: int, numbers: Iterator[int] | range | tuple[int, ...], series: int = 1) -> list[Scan]:
    """Images of one series."""
    return [Scan(study, series, number) for number in numbers]


def write(folder: Path, scan: Scan, *, large: bool = False) -> Path:
    """The image as a file; a large one is half a megabyte."""
    path = folder / f"{scan.study}-{scan.series}-{scan.number}.dcm"
    if path.exists():
        return path
    made = _dataset(scan, _LARGE if large else _SIDE)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(SOP_CLASS)
    meta.MediaStorageSOPInstanceUID = UID(scan.uid)
    meta.TransferSyntaxUID = UID(SYNTAX)
    meta.ImplementationClassUID = UID(_ROOT)
    FileDataset(str(path), made, preamble=bytes(128), file_meta=meta).save_as(path, enforce_file_format=True)
    return path


def _dataset(scan: Scan, side: int) -> Dataset:
    made = Dataset()
    made.SOPClassUID = SOP_CLASS
    made.SOPInstanceUID = scan.uid
    made.StudyInstanceUID = f"{_ROOT}.{scan.study}"
    made.SeriesInstanceUID = f"{_ROOT}.{scan.study}.{scan.series}"
    made.PatientID = f"HOSPITAL-{scan.study:05d}"
    made.PatientName = f"Patient^Number{scan.study:05d}"
    made.Modality = "CT"
    made.SeriesNumber = str(scan.series)
    made.InstanceNumber = str(scan.number)
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows = made.Columns = side
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit = 15
    made.PixelRepresentation = 0
    made.PixelData = _LABEL.pack(_MAGIC, *scan).ljust(side * side * 2, b"\0")
    made["PixelData"].VR = "OW"
    return made


def read(data: bytes) -> Scan:
    """Which image a de-identified file is; raises ValueError where it is none of ours."""
    magic, study, series, number = _LABEL.unpack_from(dcmread(BytesIO(data)).PixelData)
    if magic != _MAGIC:
        msg = "no image of this hospital"
        raise ValueError(msg)
    return Scan(study, series, number)
