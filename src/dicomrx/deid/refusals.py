"""Which instances are not de-identified at all, because their pixels or documents may name the patient where no rule looks."""

from collections.abc import Callable, Iterator
from typing import Final

from dicomrx.deid.reading import Instance, raw_text
from dicomrx.errors import Reject

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
ULTRASOUND: Final = frozenset({_STORAGE + "3", _STORAGE + "3.1", _STORAGE + "6", _STORAGE + "6.1", _STORAGE + "6.2", _STORAGE + "6.3"})
SECONDARY_CAPTURE: Final = frozenset({_STORAGE + "7", _STORAGE + "7.1", _STORAGE + "7.2", _STORAGE + "7.3", _STORAGE + "7.4"})
# PDF, CDA, STL, OBJ, MTL, and what will come in this branch.
ENCAPSULATED: Final = _STORAGE + "104."

# Ultrasound prints the name into the image; film, paper and unnamed sources are photographed with it.
RISKY_MODALITIES: Final = frozenset({"BDUS", "DOC", "HC", "IVUS", "OT", "SC", "US"})
# Words in what consoles save of their screens: dose sheets, protocols, captures.
RISKY_IMAGE_TYPES: Final = ("CAPTURE", "DOSE INFO", "HARDCOPY", "PROT", "REPORT", "SCREEN", "SNAPSHOT")
RISKY_DESCRIPTIONS: Final = ("DOSE REPORT", "PATIENT PROTOCOL", "SCREEN SAVE", "SCREENSHOT", "SCREEN SHOT", "SECONDARY CAPTURE")


_ENCAPSULATED_DOCUMENT: Final = 0x00420011
# Tag, the test of its text (in capitals, spaces for punctuation), and why that is a risk, in our words alone.
_TESTS: Final[tuple[tuple[int, Callable[[str], bool], str], ...]] = (
    (0x00280301, "YES".__eq__, "BurnedInAnnotation (0028,0301) is YES"),
    (0x00280302, "YES".__eq__, "RecognizableVisualFeatures (0028,0302) is YES"),
    (0x00080064, bool, "ConversionType (0008,0064) says that it was converted, so captured"),
    (0x00080060, RISKY_MODALITIES.__contains__, "Modality (0008,0060) is one whose pixels often show the name"),
    (0x00080008, lambda text: _has_word(text, RISKY_IMAGE_TYPES), "ImageType (0008,0008) is that of a screen or report"),
    (0x0008103E, lambda text: _has_word(text, RISKY_DESCRIPTIONS), "SeriesDescription (0008,103E) is that of a screen or report"),
)
_TELLING: Final = frozenset({0x00080016, *(tag for tag, _, _ in _TESTS)})


def check(instance: Instance, burned_in: str) -> None:
    """Raises Reject "encapsulated-document" always, and "burned-in" unless `burned_in` is "pass"."""
    if instance.sop_class.startswith(ENCAPSULATED) or _ENCAPSULATED_DOCUMENT in instance.dataset:
        raise Reject("encapsulated-document", "a document inside an instance cannot be de-identified")
    if burned_in == "pass":
        return
    risk = instance.dataset.once("risk", _TELLING, None, lambda: next(_risks(instance), None))
    if risk is not None:
        raise Reject("burned-in", risk)


def _risks(instance: Instance) -> Iterator[str]:
    """Why the pixels may show who the patient is."""
    if instance.sop_class in ULTRASOUND:
        yield "an ultrasound SOP class"
    if instance.sop_class in SECONDARY_CAPTURE:
        yield "a secondary capture SOP class"
    for tag, is_risky, why in _TESTS:
        if is_risky(raw_text(instance.dataset, tag).upper().replace("_", " ").replace("-", " ")):
            yield why


def _has_word(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)
