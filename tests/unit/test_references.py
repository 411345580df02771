"""A study whose objects refer to each other, at every depth: after de-identification each reference still leads to its object."""

import io
from collections.abc import Iterator

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ImplicitVRLittleEndian

from dicomrx.deid import BASIC, Profile, deidentify, look_again, read, write
from tests import factories
from tests.unit.deid_files import CONTEXT, EXPLICIT, PROFILES

_STORAGE = "1.2.840.10008.5.1.4.1.1."
CT, MR, SR, SEG = (_STORAGE + end for end in ("2", "4.1", "88.33", "66.4"))
PR, PLAN, STRUCTURES, DOSE = (_STORAGE + end for end in ("11.1", "481.5", "481.3", "481.2"))
FRAME_OF_REFERENCE = factories.uid(4, 1)
# What refers to an instance, a series, a study, a frame of reference, or to a thing inside an instance.
REFERENCES = ("ReferencedSOPInstanceUID", "ReferencedFrameOfReferenceUID", "ReferencedDimensionOrganization")


def made(series: int, sop_class: str, modality: str, **facts: object) -> Dataset:
    one = factories.dataset(1, series, 1)
    one.SOPClassUID, one.Modality = sop_class, modality
    for keyword, value in facts.items():
        setattr(one, keyword, value)
    return one


def item(**facts: object) -> Dataset:
    one = Dataset()
    for keyword, value in facts.items():
        setattr(one, keyword, value)
    return one


def to(target: Dataset, **more: object) -> Dataset:
    return item(ReferencedSOPClassUID=target.SOPClassUID, ReferencedSOPInstanceUID=target.SOPInstanceUID, **more)


def in_series(*targets: Dataset) -> Dataset:
    return item(SeriesInstanceUID=targets[0].SeriesInstanceUID, ReferencedSOPSequence=[to(target) for target in targets])


def enhanced_mr(images: list[Dataset]) -> Dataset:
    organization = factories.uid(5, 1)
    frames = [
        item(
            ReferencedImageSequence=[to(image, ReferencedFrameNumber="1")],
            DerivationImageSequence=[item(SourceImageSequence=[to(image)])],
            FrameContentSequence=[item(StackID="1", InStackPositionNumber=number, DimensionIndexValues=[number])],
        )
        for number, image in enumerate(images, 1)
    ]
    return made(
        2, MR, "MR",
        NumberOfFrames=str(len(frames)),
        DimensionOrganizationSequence=[item(DimensionOrganizationUID=organization)],
        DimensionIndexSequence=[item(DimensionOrganizationUID=organization, DimensionIndexPointer=0x00209057)],
        SharedFunctionalGroupsSequence=[item()],
        PerFrameFunctionalGroupsSequence=frames,
        SourceImageEvidenceSequence=[item(StudyInstanceUID=images[0].StudyInstanceUID, ReferencedSeriesSequence=[in_series(*images)])],
    )  # fmt: skip


def report(images: list[Dataset], segmentation: Dataset) -> Dataset:
    evidence = item(StudyInstanceUID=images[0].StudyInstanceUID, ReferencedSeriesSequence=[in_series(*images), in_series(segmentation)])
    return made(
        3, SR, "SR",
        CurrentRequestedProcedureEvidenceSequence=[evidence],
        ReferencedInstanceSequence=[to(image) for image in images],
        IdenticalDocumentsSequence=[evidence],
        ContentSequence=[item(ValueType="IMAGE", RelationshipType="CONTAINS", ReferencedSOPSequence=[to(images[0])])],
    )  # fmt: skip


def segmentation_of(images: list[Dataset]) -> Dataset:
    return made(
        4, SEG, "SEG",
        ReferencedSeriesSequence=[
            item(SeriesInstanceUID=images[0].SeriesInstanceUID, ReferencedInstanceSequence=[to(one) for one in images])
        ],
        PerFrameFunctionalGroupsSequence=[item(DerivationImageSequence=[item(SourceImageSequence=[to(one)])]) for one in images],
        SegmentSequence=[item(SegmentNumber=1, SegmentLabel="Liver")],
    )  # fmt: skip


def presentation(images: list[Dataset]) -> Dataset:
    references = [item(SeriesInstanceUID=images[0].SeriesInstanceUID, ReferencedImageSequence=[to(one) for one in images])]
    shown = [item(ReferencedImageSequence=[to(images[0])], DisplayedAreaTopLeftHandCorner=[1, 1])]
    return made(5, PR, "PR", ReferencedSeriesSequence=references, DisplayedAreaSelectionSequence=shown)


def radiotherapy(images: list[Dataset]) -> list[Dataset]:
    contours = [item(ContourImageSequence=[to(one)], ContourGeometricType="POINT", ContourData=[1, 2, 3]) for one in images]
    rt_series = item(SeriesInstanceUID=images[0].SeriesInstanceUID, ContourImageSequence=[to(one) for one in images])
    rt_study = to(images[0], RTReferencedSeriesSequence=[rt_series])
    rt_study.ReferencedSOPInstanceUID = images[0].StudyInstanceUID
    frame = item(FrameOfReferenceUID=FRAME_OF_REFERENCE, RTReferencedStudySequence=[rt_study])
    region = item(ROINumber="1", ReferencedFrameOfReferenceUID=FRAME_OF_REFERENCE, ROIName="Liver")
    structures = made(
        6, STRUCTURES, "RTSTRUCT",
        ReferencedFrameOfReferenceSequence=[frame],
        StructureSetROISequence=[region],
        ROIContourSequence=[item(ReferencedROINumber="1", ContourSequence=contours)],
    )  # fmt: skip
    plan = made(7, PLAN, "RTPLAN", ReferencedStructureSetSequence=[to(structures)])
    dose = made(8, DOSE, "RTDOSE", ReferencedRTPlanSequence=[to(plan)])
    plan.ReferencedDoseSequence = [to(dose)]
    return [structures, plan, dose]


def whole_study() -> list[Dataset]:
    images = [factories.dataset(1, 1, number) for number in (1, 2, 3)]
    segmentation = segmentation_of(images)
    return [*images, enhanced_mr(images), segmentation, report(images, segmentation), presentation(images), *radiotherapy(images)]


def after(one: Dataset, syntax: str, profile: Profile = BASIC) -> Dataset:
    """Through files, as in the product; opened by pydicom."""
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = UID(syntax)
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    before, behind = io.BytesIO(), io.BytesIO()
    one.save_as(before, enforce_file_format=True)
    before.seek(0)
    instance = read(before)
    output = deidentify(instance, CONTEXT, profile)
    assert look_again(instance, output, CONTEXT.pseudonym, profile) == []
    write(output, behind)
    behind.seek(0)
    return dcmread(behind)


def references(dataset: Dataset, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, UID) of everything that refers to something, at any depth."""
    for element in dataset:
        here = f"{path}/{element.keyword}"
        if element.VR == "SQ":
            for number, one in enumerate(element.value):
                yield from references(one, f"{here}[{number}]")
        elif element.keyword in REFERENCES or (path and element.VR == "UI" and not element.keyword.endswith("SOPClassUID")):
            yield here, str(element.value)


def known(study: list[Dataset]) -> set[str]:
    """The UIDs under which something is to be found: of instances, series, the study, frames of reference and dimension organisations."""
    found = {
        str(one[keyword].value)
        for one in study
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    }
    return found | {str(each.DimensionOrganizationUID) for one in study for each in one.get("DimensionOrganizationSequence", ())}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.label)
def test_every_reference_of_a_study_leads_to_its_object_as_before(profile: Profile) -> None:
    for syntax in (EXPLICIT, ImplicitVRLittleEndian):
        originals = whole_study()
        finals = [after(one, syntax, profile) for one in whole_study()]
        by_old = {old.SOPInstanceUID: new.SOPInstanceUID for old, new in zip(originals, finals, strict=True)}
        count = 0
        for old, new in zip(originals, finals, strict=True):
            before, behind = dict(references(old)), dict(references(new))
            kept = {path: uid for path, uid in behind.items() if path in before}
            assert set(behind.values()) <= known(finals), new.Modality
            for path, uid in kept.items():
                assert before[path] in known(originals), path
                assert by_old.get(before[path], uid) == uid, path
                assert (before[path] == uid) == ("retain-uids" in profile.options), path
            lost = {path.split("/")[1].split("[")[0] for path in before.keys() - behind.keys()}
            # Where the content of a report is replaced whole (Table E.1-1: D), what it refers to goes with it; its evidence stays.
            assert lost == ({"ContentSequence"} if new.Modality == "SR" and "clean-structured" not in profile.options else set())
            count += len(kept)
        assert count > 50


def test_the_check_sees_a_broken_reference() -> None:
    finals = [after(one, EXPLICIT) for one in whole_study()]
    finals[-1].ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID = "1.2.3"
    assert not set(dict(references(finals[-1])).values()) <= known(finals)
