"""What is sent: CT images of 0.5 MB, MR images of 30 kB and multi-frames of 210 MB, with headers as a hospital's are."""

import io
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

_ROOT: Final = "1.2.826.0.1.3680043.9.9999"
INSTANCE: Final = f"{_ROOT}.3.100000000"  # replaced, at the same length, in each image
_PIXELS: Final = 8  # different ones, used in turn
_SAMPLES: Final[Mapping[str, str | float]] = {
    "AS": "063Y",
    "CS": "ORIGINAL",
    "DA": "20240102",
    "DS": "1085.6",
    "DT": "20240102101112",
    "FD": 0.6,
    "IS": "3",
    "LO": "Thorax 1.0 B31f",
    "LT": "Nothing to tell.",
    "PN": "Quixano^Alonso",
    "SH": "CTAWP12345",
    "ST": "1 Main Street, Springfield",
    "TM": "101112.123456",
    "UI": f"{_ROOT}.1.7",
}
_KEYWORDS: Final = """
    ImageType InstanceCreationDate InstanceCreationTime StudyDate SeriesDate AcquisitionDate ContentDate AcquisitionDateTime StudyTime
    SeriesTime AcquisitionTime ContentTime AccessionNumber Manufacturer InstitutionName InstitutionAddress ReferringPhysicianName
    ReferringPhysicianTelephoneNumbers StationName StudyDescription SeriesDescription InstitutionalDepartmentName PhysiciansOfRecord
    PerformingPhysicianName NameOfPhysiciansReadingStudy OperatorsName AdmittingDiagnosesDescription ManufacturerModelName
    DerivationDescription PatientName PatientID IssuerOfPatientID PatientBirthDate PatientBirthTime PatientSex OtherPatientNames
    PatientBirthName PatientAge PatientSize PatientWeight PatientAddress PatientMotherBirthName MedicalAlerts Allergies
    CountryOfResidence RegionOfResidence PatientTelephoneNumbers EthnicGroup Occupation SmokingStatus AdditionalPatientHistory
    PatientReligiousPreference PatientComments ContrastBolusAgent BodyPartExamined ScanOptions SliceThickness KVP DataCollectionDiameter
    DeviceSerialNumber SoftwareVersions ProtocolName ContrastBolusRoute ContrastBolusVolume ReconstructionDiameter
    DistanceSourceToDetector DistanceSourceToPatient GantryDetectorTilt TableHeight RotationDirection ExposureTime XRayTubeCurrent
    Exposure FilterType GeneratorPower FocalSpots DateOfLastCalibration TimeOfLastCalibration ConvolutionKernel PatientPosition
    SingleCollimationWidth TotalCollimationWidth TableSpeed TableFeedPerRotation SpiralPitchFactor StudyID SeriesNumber
    AcquisitionNumber InstanceNumber PositionReferenceIndicator SliceLocation ImageComments RescaleIntercept RescaleSlope RescaleType
    WindowCenterWidthExplanation RequestingPhysician RequestingService RequestedProcedureDescription CurrentPatientLocation
    PerformedProcedureStepStartDate PerformedProcedureStepStartTime PerformedProcedureStepID PerformedProcedureStepDescription
    PatientState SpecialNeeds AdmissionID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID
"""


@dataclass(frozen=True)
class Load:
    """`count` images at most, `few` of them for a receiver that is ten times slower."""

    name: str
    title: str
    sop_class: str
    modality: str
    side: int
    count: int
    few: int
    frames: int = 1


LOADS: Final = {
    load.name: load
    for load in (
        Load("ct", "CT of 0.5 MB", "1.2.840.10008.5.1.4.1.1.2", "CT", 512, 480, 32),
        Load("mr", "MR of 30 kB", "1.2.840.10008.5.1.4.1.1.4", "MR", 112, 2400, 64),
        Load("large", "multi-frame of 210 MB", "1.2.840.10008.5.1.4.1.1.2.1", "CT", 512, 4, 4, frames=400),
    )
}


def build(load: Load, folder: Path) -> list[Path]:
    """Write the images of a load, each with a SOP Instance UID of its own."""
    folder.mkdir()
    start, length = header(load)
    noise = random.Random(load.name)
    pixels = [noise.randbytes(load.side * load.side * 2) * load.frames for _ in range(min(_PIXELS, load.count))]
    paths = [folder / f"{number:05}.dcm" for number in range(load.count)]
    for number, path in enumerate(paths):
        uid = f"{_ROOT}.3.{100_000_000 + number}"
        path.write_bytes(start.replace(INSTANCE.encode(), uid.encode()) + pixels[number % _PIXELS][:length])
    return paths


def header(load: Load, study: int = 7) -> tuple[bytes, int]:
    """All of a file up to its pixels, and how many bytes of those follow; `INSTANCE` is to be replaced in it."""
    made = Dataset()
    for keyword in _KEYWORDS.split():
        setattr(made, keyword, _SAMPLES[dictionary_VR(tag_for_keyword(keyword))])
    made.StudyInstanceUID = f"{_ROOT}.1.{study}"
    made.SpecificCharacterSet = "ISO_IR 100"
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = load.sop_class, INSTANCE, load.modality
    made.ReferencedImageSequence = [_reference(load, number) for number in range(3)]
    made.SourceImageSequence = [_reference(load, 4)]
    for group in (0x0019, 0x0021, 0x0029):
        block = made.private_block(group, "ROCINANTE HEADER", create=True)
        block.add_new(0x10, "LO", "Private Quixano^Alonso")
        block.add_new(0x11, "OB", bytes(700))
    _describe_pixels(made, load)
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = load.sop_class, INSTANCE
    made.file_meta.TransferSyntaxUID, made.file_meta.ImplementationClassUID = ExplicitVRLittleEndian, UID(_ROOT)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    length = len(made.PixelData)
    return buffer.getvalue()[:-length], length


def _reference(load: Load, number: int) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = load.sop_class, f"{_ROOT}.5.{number}"
    return made


def _describe_pixels(made: Dataset, load: Load) -> None:
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.Rows = made.Columns = load.side
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    if load.frames > 1:
        made.NumberOfFrames = str(load.frames)
    made.PixelData = bytes(load.side * load.side * 2 * load.frames)
    made["PixelData"].VR = "OW"
