"""Our own rules for the attributes that PS3.15 Table E.1-1 does not list: data, each with its reason.

The Basic Profile keeps what its table does not list. We keep of it only what a rule here names: by tag for text, which can
hold anything, and by VR for numbers, coded strings and sequences. An attribute that neither the table nor a rule here knows is
removed.
"""

from collections.abc import Mapping
from typing import Final

# What the VR alone decides, for attributes that have no rule of their own: VR -> (rule, reason).
BY_VR: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys(("AE", "PN"), ("D", "titles and names name somebody, whatever the attribute")),
    **dict.fromkeys(("AS",), ("D", "an age belongs to a patient")),
    **dict.fromkeys(("DA", "DT", "TM"), ("D", "no date survives the Basic Profile, whatever the attribute")),
    **dict.fromkeys(("LO", "LT", "SH", "ST", "UC", "UT"), ("D", "text that no rule knows may have been typed by a person")),
    "UR": ("D", "an address names the site that it leads to"),
    "UI": ("U", "an instance's UID, until a rule says that it names a class"),
    "SQ": ("R", "the items are de-identified, element by element"),
    **dict.fromkeys(("OB", "OW"), ("X", "bytes that no rule knows may be anything")),
    **dict.fromkeys(("CS", "DS", "IS"), ("K", "coded strings and numbers, held to the repertoire of their VR")),
    **dict.fromkeys(("AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"), ("K", "numbers, held to size and multiplicity")),
    **dict.fromkeys(("OD", "OF", "OL", "OV"), ("K", "arrays of numbers: pixels, meshes, tables")),
}

# Text that stays, where it looks technical (values.is_technical): reason -> keywords.
TECHNICAL: Final[Mapping[str, tuple[str, ...]]] = {
    "the make of the machine or program": (
        "AlgorithmName",
        "AlgorithmSource",
        "AlgorithmVersion",
        "ApplicationManufacturer",
        "ApplicationName",
        "ApplicationVersion",
        "DetectorManufacturerModelName",
        "DetectorManufacturerName",
        "Manufacturer",
        "ManufacturerModelName",
        "ManufacturerModelVersion",
        "ManufacturerRelatedModelGroup",
        "ReceiveCoilManufacturerName",
        "SecondaryCaptureDeviceManufacturer",
        "SecondaryCaptureDeviceManufacturerModelName",
        "SecondaryCaptureDeviceSoftwareVersions",
        "SoftwareVersions",
        "TransmitCoilManufacturerName",
    ),
    "how the image was acquired": (
        "ASLTechniqueDescription",
        "AcquisitionDeviceProcessingCode",
        "AcquisitionMode",
        "ApplicableSafetyStandardDescription",
        "CardiacFramingType",
        "CollimatorGridName",
        "ContrastBolusRoute",
        "DigitalImageFormatAcquired",
        "DoseModeName",
        "EnergyWindowName",
        "FilterType",
        "ImagedNucleus",
        "InterventionDrugName",
        "MultiCoilConfiguration",
        "MultiCoilElementName",
        "OutputPower",
        "PaddleDescription",
        "PVCRejection",
        "PhosphorType",
        "PlateType",
        "ProcessingFunction",
        "PulseSequenceName",
        "Radiopharmaceutical",
        "RadiopharmaceuticalRoute",
        "ReceiveCoilName",
        "SequenceName",
        "StageName",
        "TransducerData",
        "TransmitCoilName",
        "TriggerSourceOrType",
        "TypeOfFilters",
        "VideoImageFormatAcquired",
        "ViewName",
    ),
    "how the image was computed": (
        "AttenuationCorrectionMethod",
        "ConvolutionKernel",
        "DetectorLinesOfResponseUsed",
        "ImageFilter",
        "ReconstructionMethod",
        "ScatterCorrectionMethod",
    ),
    "what the pixel values and frames mean": (
        "DimensionDescriptionLabel",
        "LUTExplanation",
        "LUTLabel",
        "ModalityLUTType",
        "OpticalPathIdentifier",
        "PixelValueMappingExplanation",
        "PositionReferenceIndicator",
        "ReferencedOpticalPathIdentifier",
        "RescaleType",
        "SegmentAlgorithmName",
        "SegmentLabel",
        "StackID",
        "WindowCenterWidthExplanation",
    ),
    "beam-shaping parts, which plans refer to by name": (
        "ApplicatorID",
        "BlockTrayID",
        "BolusID",
        "CompensatorID",
        "FluenceModeID",
        "MaterialID",
        "SourceIsotopeName",
        "WedgeID",
    ),
    "a species is nobody's identity": ("PatientSpeciesDescription",),
    "the meaning of a code, or the name of its terminology": (
        "CodeMeaning",
        "CodingSchemeName",
        "CodingSchemeRegistry",
        "MappingResourceName",
    ),
    "the type of a document's content": ("MIMETypeOfEncapsulatedDocument",),
}

# Codes that stay, where they look like codes (values.is_code).
CODES: Final[Mapping[str, tuple[str, ...]]] = {
    "a code of a terminology says what, never who": (
        "CodeValue",
        "CodingSchemeDesignator",
        "CodingSchemeVersion",
        "LongCodeValue",
        "URNCodeValue",
    ),
}

# UIDs of classes, syntaxes and terminologies, private ones too: they say what an object is, not which one.
CLASS_UIDS: Final[Mapping[str, tuple[str, ...]]] = {
    "a SOP class": (
        "OriginalSpecializedSOPClassUID",
        "PertinentSOPClassesInSeries",
        "PertinentSOPClassesInStudy",
        "ReferencedSOPClassUID",
        "RelatedGeneralSOPClassUID",
        "SOPClassUID",
        "SOPClassesInStudy",
        "SOPClassesSupported",
    ),
    "a transfer syntax": (
        "AvailableTransferSyntaxUID",
        "EncryptedContentTransferSyntaxUID",
        "FlowTransferSyntaxUID",
        "MACCalculationTransferSyntaxUID",
        "StoredInstanceTransferSyntaxUID",
    ),
}
# A terminology of a site's own names the site, so of these only what a public registry holds stays: DICOM's own and HL7's.
TERMINOLOGY_UIDS: Final[Mapping[str, tuple[str, ...]]] = {
    "a terminology": ("CodingSchemeUID", "ContextUID", "MappingResourceUID"),
}
TERMINOLOGY_ROOTS: Final = (b"1.2.840.10008.2.16.", b"1.2.840.10008.6.1.", b"2.16.840.1.113883.6.")

# Bytes that stay as they came.
BULK: Final[Mapping[str, tuple[str, ...]]] = {
    "pixels and their tables: searched by no rule, see the refusals for burned-in text": (
        "AlphaPaletteColorLookupTableData",
        "BluePaletteColorLookupTableData",
        "BlendingLookupTableData",
        "GreenPaletteColorLookupTableData",
        "ICCProfile",
        "LUTData",
        "PixelData",
        "RedPaletteColorLookupTableData",
        "SegmentedAlphaPaletteColorLookupTableData",
        "SegmentedBluePaletteColorLookupTableData",
        "SegmentedGreenPaletteColorLookupTableData",
        "SegmentedRedPaletteColorLookupTableData",
    ),
    "samples of a waveform": ("ChannelMaximumValue", "ChannelMinimumValue", "WaveformData", "WaveformPaddingValue"),
    "colours of a mesh": ("RecommendedDisplayCIELabValueList",),
}

# Numbers that are somebody's, though their VR is that of a measure.
IDENTIFYING: Final[Mapping[str, tuple[str, ...]]] = {"the numbers of the patient's other studies": ("OtherStudyNumbers",)}

CHARSET: Final[Mapping[str, tuple[str, ...]]] = {"the character set, of which every term must be known": ("SpecificCharacterSet",)}

# Without these the pixels cannot be read: an image whose own are malformed is refused, not made unreadable.
ESSENTIAL: Final = (
    "BitsAllocated",
    "BitsStored",
    "Columns",
    "DoubleFloatPixelData",
    "FloatPixelData",
    "HighBit",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelData",
    "PixelRepresentation",
    "PlanarConfiguration",
    "Rows",
    "SOPClassUID",
    "SamplesPerPixel",
)
