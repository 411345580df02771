"""Writes src/dicomrx/deid/vocabulary.txt, the words that may stay in a description (PS3.15 E.3.5).

    python scripts/make_vocabulary.py > src/dicomrx/deid/vocabulary.txt

They are the words of the standard's own context groups of anatomy, modality, view and technique (`GROUPS`, by their names in
pydicom's dictionary of PS3.16), and the terms kept by hand in vocabulary_terms.txt. What is also the name of many people is left
out unless nothing else says what it says (`EXCLUDED`), and so is every single letter but those for sides and for contrast.
"""

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, cast

from pydicom.sr._cid_dict import cid_concepts, name_for_cid
from pydicom.sr._concepts_dict import concepts

TERMS: Final = Path(__file__).with_name("vocabulary_terms.txt")
HEADER: Final = """\
# The words that may stay in a description, casefolded and composed (NFC), sorted: made by scripts/make_vocabulary.py from the
# context groups of PS3.16 in pydicom's dictionary and from scripts/vocabulary_terms.txt. Change those, not this.
"""
GROUPS: Final = """
    AbdominalSegmentationType AbdominopelvicArtery(Paired) AbdominopelvicArtery(Unpaired) AbdominopelvicVein(Paired)
    AbdominopelvicVein(Unpaired) AcquisitionModality AdministrationRoute AnatomicModifier AnatomicRegion
    AnatomicRegionModifierforIntraoralRadiography AnatomicRegionforIntraoralRadiography AnatomicRegionforMammography
    AnatomicalReferenceBasis AnatomicalStructureforRadiotherapy AssociationFiber AttenuationCorrectionMethod BasicCardiacView
    BasicEchoAnatomicSite BrainStructureforVolumetricMeasurement CNSSegmentationType CT,MRandPETAnatomyImaged CTAcquisitionType
    CTReconstructionAlgorithm CTTransversePlaneReferenceBasis CardiacPhase CardiacStructureSegmentationType
    CardiacSynchronizationTechnique CardiovascularAnatomicLocation CardiovascularAnatomicStructure
    CardiovascularAnatomicStructureModifier CardiovascularImagingProcedure CommissuralFiber CommonAnatomicRegion
    CommonTissueSegmentationType ContrastCharacteristic ContrastImagingTechnique CoronaryArterySegment CoronaryVein
    CouinaudLiverSegment CranialNerve CranioCaudadAngulation CraniofacialAnatomicRegion CrosssectionalScanPlaneOrientation
    DXAnatomyImaged DXView DXViewModifier DiffusionAcquisitionValueType DiffusionModelValueType DrugorContrastAgentCharacteristic
    EchocardiographyAnatomicSite EchocardiographyImageView ElastographySite EndoscopyAnatomicRegion ExtracranialArtery
    FetalCraniumAnatomicSite FetalLongBoneAnatomicSite FetalVasculatureAnatomicalLocation FiberTractInBrainstem FixationDevice
    FluoroMode FunctionalConditionPresentDuringAcquisition GeneralExternalRadiotherapyProcedureTechnique
    GenericAnatomicLocationModifier HeadandNeckCancerAnatomicSite ImageDerivation ImagingContrastAgent
    ImagingContrastAgentIngredient ImagingProcedure IntervertebralDisc IntracranialCerebralVessel JointPositionDuringAcquisition
    KVImagingAcquisitionTechniques LateralitywithMedian LeftVentricleMyocardialWall17SegmentModel LimbicSystemTract
    LiverSegmentationType LobeofLung LocationinIntestinalTract LowerExtremityArtery LowerExtremityVein LymphNodeAnatomicSite
    MRCoilType MRDiffusionModel MRSignalIntensity MRSpectroscopyMetabolite MediastinumAnatomy Modality MuscularAnatomy
    NM/PETProcedure NonAcquisitionModality NuclearCardiologyProtocol NuclearMedicineProjection OphthalmicAnatomicStructureImaged
    OphthalmicImagePosition OphthalmicImagingAgent OphthalmicOCTAnatomicStructureImaged OphthalmicPhotographyIllumination
    OrganPart(Lateralized) OrganPart(NonLateralized) PETCardiologyProtocol PartialViewSectionforMammography PatientEquipmentRelationship
    PatientOrientation PatientOrientationModifier PatientPositionAcquisition–CTTechniques PatientPositionAcquisition–MRTechniques
    PelvicOrganSegmentationType PelvisandUterusAnatomicSite PerfusionModelParameter PeripheralNervousSystemSegmentationType
    PhysicalForceAppliedDuringAcquisition ProjectionandThalamicFiber ProstateAnatomy PulmonaryArtery PulmonaryVein QuadrantLocation
    QuantitativeDiagnosticImagingProcedure RadiopharmaceuticalIsotope Radiopharmaceutical RadiosensitiveOrgan RadiotherapyTarget
    ReferenceGeometryPlane RelativeLaterality RenalVessel RespirationState Rest/StressState SegmentLocationinLung SpinalCordFiber
    StressAgent T1MeasurementMethod ThoracicSegmentationType TractographyAnatomicSite TransducerApproach TransducerOrientation
    UltrasoundBeamPath UltrasoundContrast/BolusAgent UltrasoundImageMode UltrasoundProtocolStageType UltrasoundProtocolType
    UpperExtremityArtery UpperExtremityVein VascularAnatomy VascularSegmentationType VascularUltrasoundAnatomicLocation Vertebra
    VertebralAnatomicStructure VesselSegmentModifier ViewModifierforMammography ViewforMammography VolumetricViewDescription
    VolumetricViewModifier XA/XRFAnatomyImaged ZoneofLung
"""  # noqa: RUF001 - the dictionary has the dash
# Why -> which. Such as Head, Hand, Kopf, Cabeza, Dixon, Rao and Li stay: they name a body part, a sequence, a view, a side.
EXCLUDED: Final = {
    "eponyms, which are the names of people": """
        balke baum boyd bruce chang cockett dodd ellestad giacomini hunterian joslin meyer naughton trendelenburg willis
    """,
    "names of many people, and the rest of a description says enough": """
        alla arto black blanco block blue branch bravo bridge bright cara carina cho constant cortes coste day deep delgado delle
        dick dita dunne field floor front galle gold gray green gross hart held horn hu iris kaak key klein kurz lad lex lies line
        lo long ma major mani neo niño ojo omar pan para pat petra pia power prima rate ray real rene ring rocher rose sharp
        short singleton small smart sur una uss ute vista wall white zahn
    """,
    "particles of names, which mean nothing without what follows": """
        al au aux con da das de dei del della den der des di die du een el en gli het il im in la las le les los of the
        van ven vom von vor zu zum zur
    """,
    "names and numbers of months, which are parts of dates": "ii iii mar set vi vii viii",
}
SINGLE_LETTERS: Final = frozenset("clmorw")  # left, right; +C, with, without, mit, ohne
_WORD: Final = re.compile(r"[^\W_]+")


def coded_words() -> Iterator[str]:
    """The words of the meanings of every code in `GROUPS`; those with a digit are left to the rules for numbers."""
    wanted = set(GROUPS.split())
    numbers = {number for number, name in name_for_cid.items() if name.replace(" ", "") in wanted}
    for number in numbers:
        for scheme, keywords in cid_concepts[number].items():
            for keyword in keywords:
                for meaning, groups in meanings(scheme, keyword):
                    if number in groups:
                        yield from (word for word in _WORD.findall(folded(meaning)) if word.isalpha())


def meanings(scheme: str, keyword: str) -> Iterable[tuple[str, list[int]]]:
    """(meaning, context groups) of the codes that share a keyword."""
    return cast("dict[str, tuple[str, list[int]]]", concepts[scheme][keyword]).values()


def kept_by_hand() -> Iterator[str]:
    """The words of the file beside this script."""
    for line in TERMS.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            yield from folded(line).split()


def folded(text: str) -> str:
    """As words are compared."""
    return unicodedata.normalize("NFC", text.casefold())


def vocabulary() -> list[str]:
    """Every word, sorted."""
    left_out = {word for words in EXCLUDED.values() for word in words.split()}
    words = {*coded_words(), *kept_by_hand()} - left_out
    return sorted(word for word in words if len(word) > 1 or word in SINGLE_LETTERS)


if __name__ == "__main__":
    sys.stdout.write(HEADER + "\n".join(vocabulary()) + "\n")
