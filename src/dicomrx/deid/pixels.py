"""What an original and its de-identified file have in common, byte for byte: most of both."""

from typing import BinaryIO, Final

from dicomrx.deid.dataset import Output
from dicomrx.deid.reading import Instance, outline, pixels_of

_WORTH: Final = 1024


def shared_pixels(instance: Instance, output: Output) -> range:
    """Where in the file of an instance the value of its pixels lies, if the output's are the very same, where `outline` will find them.

    An empty range where they are not (deflated, blanked, removed), and where that is too short to be worth it.
    """
    pixels = pixels_of(output.dataset)
    if pixels is None or pixels is not pixels_of(instance.dataset) or instance.encoding.deflated or len(pixels) < _WORTH:
        return range(0)
    return pixels.place


def at_pixels(file: BinaryIO) -> BinaryIO | None:
    """The file, at the begin of its pixels' value; None where it has none."""
    there = outline(file).pixels
    if there is None:
        return None
    file.seek(there)
    return file
