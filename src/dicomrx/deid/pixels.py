"""What an original and its de-identified file have in common, by their bytes: most of both."""

from typing import BinaryIO, Final

from pydicom.dataelem import RawDataElement

from dicomrx.deid.reading import PIXELS, Instance, element_at, outline

_WORTH: Final = 1024
_CHUNK: Final = 1 << 20


def shared_pixels(instance: Instance, source: BinaryIO, output: BinaryIO) -> range:
    """Where in `source`, the file of an instance, the value of its pixels lies, if `output` has the very same where `outline` finds it.

    An empty range where it has not (deflated, blanked, removed), and where it is too short to be worth it.
    """
    tag = next((tag for tag in PIXELS if tag in instance.dataset), None)
    element = None if tag is None else element_at(instance.dataset, tag)
    if not isinstance(element, RawDataElement) or len(element.value or b"") < _WORTH:
        return range(0)
    pixels = range(element.value_tell, element.value_tell + len(element.value or b""))
    there = outline(output).pixels  # none of a deflated one, whose original was deflated too
    return pixels if there is not None and _equal(source, pixels, output, there) else range(0)


def at_pixels(file: BinaryIO) -> BinaryIO | None:
    """The file, at the begin of its pixels' value; None where it has none."""
    there = outline(file).pixels
    if there is None:
        return None
    file.seek(there)
    return file


def _equal(source: BinaryIO, pixels: range, output: BinaryIO, there: int) -> bool:
    source.seek(pixels.start)
    output.seek(there)
    left = len(pixels)
    while left:
        chunk = source.read(min(_CHUNK, left))
        if not chunk or output.read(len(chunk)) != chunk:
            return False
        left -= len(chunk)
    return True
