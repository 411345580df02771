"""What is de-identified: images as of a ward's day, so many a study; within a study they differ as a scanner's images do."""

import io
import random
from pathlib import Path

from pydicom import Dataset, dcmread

from receiving.loads import INSTANCE, header

PER_STUDY = 60
FAMILY_NAME = "Quixano"
_PIXELS_HEAD = 12  # tag, VR and length before native pixels in Explicit VR Little Endian
_PIXELS = 4  # different ones, used in turn
_NUMBER = 10**8


def build(load, folder, count):
    """Write so many images of a load; each study is of another patient."""
    folder.mkdir()
    noise = random.Random(load.name)
    pixels = [noise.randbytes(load.side * load.side * 2) * load.frames for _ in range(min(_PIXELS, count))]
    return [_write(folder / f"{number:05}.dcm", _head(load, number), pixels[number % len(pixels)]) for number in range(count)]


def _write(path: Path, *parts: bytes) -> Path:
    with path.open("xb") as file:
        file.writelines(parts)
    return path


def _head(load, number):
    study, place = divmod(number, PER_STUDY)
    start, _ = header(load, study + 1)
    made = dcmread(io.BytesIO(start), stop_before_pixels=True)
    made.PatientName, made.PatientID = f"{FAMILY_NAME}^Alonso {'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[study % 26]}", f"PID{study:07}"
    made.PatientBirthDate, made.SeriesInstanceUID = "19470923", f"{made.StudyInstanceUID}.2"
    made.InstanceNumber, made.SliceLocation = place + 1, f"{place * 1.25 - 300:.2f}"
    made.ImagePositionPatient = ["-190.0", "-190.0", f"{place * 1.25 - 300:.2f}"]
    made.ContentTime = made.AcquisitionTime = f"10{place // 60:02}{place % 60:02}.250000"
    made.WindowCenter, made.XRayTubeCurrent = 40, 230 + place
    _order(made)
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = INSTANCE[:-9] + str(_NUMBER + number)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue() + start[-_PIXELS_HEAD:]


def _order(made):
    """What an order leaves in an image."""
    code, request, study = Dataset(), Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CTTHX", "LOCAL", "CT Thorax"
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "RP1", "SPS1"
    request.ScheduledProcedureStepDescription = request.RequestedProcedureDescription = f"CT for {FAMILY_NAME}"
    request.RequestedProcedureCodeSequence = [code]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", f"{made.StudyInstanceUID}.9"
    made.ReferencedStudySequence, made.ProcedureCodeSequence, made.RequestAttributesSequence = [study], [code], [request]
    block = made.private_block(0x0029, "ROCINANTE CSA", create=True)
    for number in range(6):
        block.add_new(0x10 + number, "LO", f"Private {FAMILY_NAME}^Alonso")
    block.add_new(0x20, "OB", bytes(range(256)) * 8)
