"""What the images of a series have in common, so that it is parsed, judged, searched and written once and not with each image."""

from itertools import groupby
from typing import Final, NamedTuple

from dicomrx.deid.dataset import Bulk, DataSet, Element, Halved, Shared
from dicomrx.deid.encoding import Encoding
from dicomrx.deid.structure import Parser, Run
from dicomrx.deid.tags import creator_tag

# Of a longer header nothing is kept, and of all together so much at most, so that hostile ones cannot fill the memory. An element takes a
# kilobyte, with what is made of it, and each of its bytes sixteen or, made of nothing but short values, up to 200: there is room for fifty
# headers of a common length, or for sixteen of the longest.
_ELEMENTS: Final = 2048
_BYTES: Final = 1 << 24
_ELEMENT_BYTES: Final = 1 << 10
_BYTE_BYTES: Final = 16
_SERIES_UID: Final = 0x0020000E
# The character set, and what a content item is about: what is done to other elements goes by these.
_LEANT_ON: Final = frozenset({0x00080005, 0x0040A043})


class _Template(NamedTuple):
    """What was the same in all instances of a series so far: elements as bytes, joined to runs where they follow each other, and parsed.

    `fixed` are their tags and those by which they are judged: the latter are among them, or in no instance that they are used for.
    `size` is about what it takes of the memory, in bytes.
    """

    size: int
    raw: dict[int, bytes]
    runs: list[Run]
    shared: Shared
    fixed: frozenset[int]


class Memory:
    """The headers of the latest series, of each at most a window: to be cleared when there is nothing to do, for they name patients.

    Whose an element was does not matter, for it is the same to the byte; what a profile made of it is used again for the same patient
    and profile only.
    """

    def __init__(self) -> None:
        self._templates: dict[tuple[int | None, Encoding, bytes], _Template] = {}

    def clear(self) -> None:
        """Forget all."""
        self._templates.clear()

    def parse(self, parser: Parser, encoding: Encoding, group: int | None = None) -> DataSet:
        """As `Parser.parse`."""
        parser.begin(encoding, group)
        series = group, encoding, parser.guessed(_SERIES_UID)
        template = self._templates.pop(series, None)  # the latest are last
        own = None if template is None or not template.runs else parser.beside(template.runs)
        if template is not None and own is not None and own.keys().isdisjoint(template.fixed):
            if len(own) < len(template.raw):
                self._templates[series] = template
                return Halved(template.shared, own)
            template = None
        found = parser.top_level()
        if parser.elements > _ELEMENTS:
            return found
        made = self._templates[series] = _template(parser, found, template)
        while sum(each.size for each in self._templates.values()) > _BYTES:
            del self._templates[next(iter(self._templates))]
        own = DataSet((tag, element) for tag, element in found.items() if tag not in made.shared.elements)
        return Halved(made.shared, own) if made.runs and own.keys().isdisjoint(made.fixed) else found


def _template(parser: Parser, found: DataSet, before: _Template | None) -> _Template:
    """What an instance has in common with those before it; where that is not even half, what it may have with those to come."""
    runs = list(parser.runs())
    size = parser.elements * _ELEMENT_BYTES + sum(len(run.raw) for run in runs) * _BYTE_BYTES
    known = {} if before is None else before.raw
    raw = {tag: data for tag, data in runs if known.get(tag) == data and not _is_left(found[tag])}
    if len(raw) * 2 < len(found):
        return _Template(size, dict(runs), [], Shared(DataSet()), _LEANT_ON)
    parts = [list(part) for is_common, part in groupby(runs, lambda run: run.tag in raw) if is_common]
    return _Template(
        size,
        raw,
        [Run(part[0].tag, b"".join(run.raw for run in part)) for part in parts],
        Shared(DataSet((tag, found[tag]) for tag in raw)),
        frozenset({*raw, *(creator_tag(tag) or tag for tag in raw), *_LEANT_ON}),
    )


def _is_left(element: Element) -> bool:
    """True where any of it is left in its stream, which will be closed."""
    if element.items is None:
        return isinstance(element.value, Bulk)
    return isinstance(element.value, Bulk) or any(_is_left(inner) for item in element.items for inner in item.values())
