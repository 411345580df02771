"""Instances made for a test: small, valid, and full of identity."""

from pathlib import Path

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
_ROOT = "1.2.826.0.1.3680043.9.9999"


def uid(kind: int, *numbers: int) -> str:
    return ".".join([_ROOT, str(kind), *map(str, numbers)])


def dataset(
    study: int = 1,
    series: int = 1,
    number: int = 1,
    *,
    name: str = "Quixano^Alonso",
    patient_id: str = "HID-778899",
    birth_date: str = "19470923",
    issuer: str = "",
    side: int = 16,
    seed: int = 0,
) -> Dataset:
    """A CT image whose UIDs come from three numbers; `seed` changes its pixels and nothing else."""
    made = _image(side, seed + number)
    made.StudyInstanceUID = uid(1, study)
    made.SeriesInstanceUID = uid(2, study, series)
    made.SOPInstanceUID = uid(3, study, series, number)
    made.FrameOfReferenceUID = uid(4, study)
    made.PatientName = name
    made.PatientID = patient_id
    if issuer:
        made.IssuerOfPatientID = issuer
    made.PatientBirthDate = birth_date
    made.PatientSex = "M"
    made.StudyDate = made.SeriesDate = made.ContentDate = "20240517"
    made.StudyTime = made.ContentTime = "101112"
    made.AccessionNumber = "ACC5566778"
    made.ReferringPhysicianName = "Carrasco^Sanson"
    made.StudyID = "S1"
    made.StudyDescription = "Thorax of Quixano"
    made.SeriesNumber = str(series)
    made.InstanceNumber = str(number)
    return made


def _image(side: int, seed: int) -> Dataset:
    made = Dataset()
    made.SOPClassUID = CT
    made.Modality = "CT"
    made.Manufacturer = "Rocinante Medical"
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows = made.Columns = side
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit = 15
    made.PixelRepresentation = 0
    made.PixelData = bytes((index + seed) % 251 for index in range(side * side * 2))
    made["PixelData"].VR = "OW"
    return made


def write(path: Path, made: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = made.SOPClassUID
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(_ROOT)
    file = FileDataset(str(path), made, preamble=b"\0" * 128, file_meta=meta)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path


def study(folder: Path, number: int = 1, images: int = 4, **facts: object) -> list[Path]:
    """A study of one series as files."""
    return [write(folder / f"{number}-{image}.dcm", dataset(number, 1, image, **facts)) for image in range(1, images + 1)]  # type: ignore[arg-type]
