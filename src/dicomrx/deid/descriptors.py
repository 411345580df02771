"""What may stay of a description: the words of a known vocabulary, and numbers that tell of a technique and of no date.

PS3.15 E.3.5 note 2: what is known to be useful and safe is extracted, all else is dropped. Where something is dropped a space is left,
so that what stays never joins to something new.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from dicomrx.deid.spellings import WORD

# Beyond ASCII only these stand between words; any other sign, seen or not, belongs to a word, which then is in no vocabulary.
_CHARACTER: Final = r"(?:[A-Za-z0-9]|[^\x00-\x7f\s–—…„“”‚‘’«»·•×])"  # noqa: RUF001 - dashes and quotes as people type them
_TOKEN: Final = re.compile(
    r"[^\W\d_]{1,5}['’](?=\w)"  # noqa: RUF001 - l'épaule, dell'anca: no l for left
    rf"|[TR]2\*{_CHARACTER}*"  # T2*, which is not T2
    r"|(?:[12]?[1-9]|[123]0|31)\.(?:0?[1-9]|1[0-2])\.(?!\d)"  # 12.3., a day without its year
    rf"|{_CHARACTER}+(?:(?<=\d)[.,](?=\d){_CHARACTER}+)*",
    re.IGNORECASE,
)
_CAMEL: Final = re.compile(r"(?<=[a-zß-öø-ÿ]{2})(?=[A-ZÀ-ÖØ-Þ])")
_SEPARATOR: Final = re.compile(r" ?|(?: ?[-_/+.,:^&] ?)")
_DIGIT: Final = re.compile(r"\d")

# IDs, telephones and dates have leading zeros, and more digits than four.
_NUMBER: Final = re.compile(r"(?=.{1,5}$)(?:0|[1-9]\d{0,2})(?:[.,]\d{1,3})?", re.ASCII)
_MEASURE: Final = re.compile(r"([\d.,]+)([a-z]+)", re.ASCII | re.IGNORECASE)
_MATRIX: Final = re.compile(r"[1-9]\d{0,2}(?:[.,]\d{1,2})?(?:x[1-9]\d{0,2}(?:[.,]\d{1,2})?){1,2}(?:mm|cm)?", re.ASCII | re.IGNORECASE)
# b-values and times; vertebrae, short names of sequences and of parallel imaging; kernels (B30f, Br40d, I26s).
_LETTERED: Final = re.compile(
    r"(?:b|te|tr|ti|fa)\d{1,3}"
    r"|(?:[cghilpqrstuv]|b[flrv]|f[cl]|h[frv]|qr|th|u[br]|sl)[1-9]\d?"
    r"|(?:[bhijqtu]|b[flrv]|h[frv]|qr|u[br])\d\d[dfhsu]",
    re.ASCII | re.IGNORECASE,
)
_VERTEBRAE: Final = re.compile(r"(?:c|th?|l|s)(\d{1,2})[-/](\d{1,2})", re.ASCII | re.IGNORECASE)
# A bare decimal that is a day and a month as well.
_DAY_AND_MONTH: Final = re.compile(r"(?:[12]?[1-9]|[123]0|31)[.,](?:0[1-9]|1[0-2])", re.ASCII)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_UNITS: Final = _words("ch cgy cm d deg gy hz k kev kg khz kv kvp ma mas mbq mci mev mg mgy mhz min ml mm ms msv mv nm s sec t x")
# Beside a month, in the languages of the vocabulary, a number is part of a date ...
_MONTHS: Final = _words("""
    jan january januar jänner janner januari janvier janv enero ene gennaio gen feb february februar feber februari février fevrier févr
    fevr febrero febbraio mar march märz marz mär mrz maart mars marzo apr april avril avr abril abr aprile may mai mei mayo maggio
    jun june juni juin junio giugno giu jul july juli juillet juil julio luglio lug aug august augustus août aout agosto ago sep sept
    september septembre septiembre settembre set october oktober okt octobre octubre ottobre ott nov november novembre noviembre
    dec december dezember dez décembre decembre déc diciembre dic dicembre
""")
# ... and these are months beside a bare number only: intravenous, magnitude, Magnetresonanztomographie, optical coherence ...
_ALSO_MONTHS: Final = _words("iv mag mrt oct")
# ... and so are these the sex beside an age: metres, weighted.
_ALSO_SEXES: Final = _words("m w")
# Beside these it is part of an age, a telephone, an ID, a place.
_PERSONAL: Final = _words("""
    geb geboren geburtsdatum gebdat born dob birth birthdate né née nés naissance nacido nacida nacimiento nato nata nascita
    geboortedatum alter alt age aged ans años anni jaar jahre jahr jährig jährige jähriger jährigen j y yo yr yrs year years old f sex
    tel telefon téléphone teléfono telefono phone fax handy mobil mobiel nr num numéro número numero nummer id pid mrn pat patient
    patientin paciente paziente patiënt fall case acc accession auftrag zimmer room station ward bett bed kamer plz zip
""")
_TITLES: Final = _words("""
    dr dra drs doctor prof professor hr herr herrn fr frau mrs miss mme mlle monsieur madame señor señora sra sig signor signora dott
    dhr mevr mevrouw
""")
_REACH: Final = 2  # 3 de marzo


class _Token(NamedTuple):
    before: str  # what stands between the token before and this
    text: str
    folded: str
    has_digit: bool
    is_bare: bool  # a number without letters


def _token(before: str, text: str) -> _Token:
    has_digit = _DIGIT.search(text) is not None
    return _Token(before, text, unicodedata.normalize("NFC", text.casefold()), has_digit, has_digit and not any(c.isalpha() for c in text))


@cache
def vocabulary() -> frozenset[str]:
    """The known words, casefolded and composed."""
    text = resources.files(__package__).joinpath("vocabulary.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if not line.startswith("#"))


def clean(text: str, own_words: frozenset[str]) -> str:
    """What may stay of one value, spelled as it was and never longer; empty where nothing may.

    `own_words` are the words of the instance's own identifiers, casefolded and composed (NFC): they go even if the vocabulary has them.
    """
    # What has lost its middle is looked at again: 12 Foo 85.
    while (cleaned := _once(text, own_words)) != text:
        text = cleaned
    return text


def _once(text: str, own_words: frozenset[str]) -> str:
    tokens = list(_tokens(text, own_words))
    stays = [_known(token, own_words) for token in tokens]
    for begin, end in _runs(tokens):
        if not (all(stays[begin:end]) and _harmless(tokens, begin, end)):
            stays[begin:end] = [False] * (end - begin)
    for i in _overshadowed(tokens):
        stays[i] = False
    _drop_with(tokens, stays)
    return _joined(tokens, stays)


def _tokens(text: str, own_words: frozenset[str]) -> Iterator[_Token]:
    end = 0
    for match in _TOKEN.finditer(text):
        token = _token(text[end : match.start()], match.group())
        end = match.end()
        # AbdomenRoutine: looked at word by word where it is no word as a whole (kV, mSv).
        if token.text.isalpha() and token.folded not in vocabulary() and token.folded not in own_words:
            first, *others = _CAMEL.split(token.text)
            yield _token(token.before, first)
            yield from (_token("", other) for other in others)
        else:
            yield token


def _known(token: _Token, own_words: frozenset[str]) -> bool:
    if token.folded in own_words or not own_words.isdisjoint(WORD.findall(token.folded)):
        return False
    return token.folded in vocabulary() or _is_technical(token.text)


def _is_technical(text: str) -> bool:
    if any(rule.fullmatch(text) for rule in (_NUMBER, _LETTERED, _MATRIX)):
        return True
    measure = _MEASURE.fullmatch(text)
    return measure is not None and measure[2].casefold() in _UNITS and _NUMBER.fullmatch(measure[1]) is not None


def _runs(tokens: list[_Token]) -> Iterator[tuple[int, int]]:
    """Where numbers follow each other, which is how dates and telephones are written: (begin, end) of each such run."""
    begin = 0
    for end in range(1, len(tokens) + 1):
        if end < len(tokens) and _adjoin(tokens[end - 1], tokens[end]):
            continue
        if tokens[begin].has_digit:
            yield begin, end
        begin = end


def _adjoin(one: _Token, other: _Token) -> bool:
    """True for two numbers whatever is between them; where one has letters, as T1 has, only if no space is."""
    if not (one.has_digit and other.has_digit):
        return False
    return (one.is_bare and other.is_bare) or not any(c.isspace() for c in other.before)


def _is_measured(tokens: list[_Token], i: int) -> bool:
    """True where a unit follows that is no single letter: in 11.X.2000 that is a month."""
    return i + 1 < len(tokens) and len(tokens[i + 1].text) > 1 and tokens[i + 1].folded in _UNITS


def _harmless(tokens: list[_Token], begin: int, end: int) -> bool:
    run = tokens[begin:end]
    if len(run) == 1:
        return _is_measured(tokens, begin) or not _DAY_AND_MONTH.fullmatch(run[0].text)
    if not any(token.is_bare for token in run):
        return True  # T1/T2, C5-C7, 2D_3mm
    levels = _VERTEBRAE.fullmatch(run[0].text + "".join(token.before + token.text for token in run[1:]))
    return levels is not None and int(levels[1]) < int(levels[2])  # L4/5


def _overshadowed(tokens: list[_Token]) -> Iterator[int]:
    """Numbers near a month or a word that comes with a person; words behind a title (Dr. Hand)."""
    for i, token in enumerate(tokens):
        letters = _DIGIT.sub("", token.folded) if token.has_digit else token.folded
        if letters in _MONTHS or token.folded in _PERSONAL:
            yield from (j for j in _near(i, _REACH, tokens) if tokens[j].has_digit)
        elif letters in _ALSO_MONTHS | _ALSO_SEXES:
            yield from (j for j in _near(i, 1, tokens) if tokens[j].is_bare)
        elif token.folded in _TITLES:
            yield from range(i + 1, min(i + _REACH + 1, len(tokens)))


def _drop_with(tokens: list[_Token], stays: list[bool]) -> None:
    """With a number that goes go the bare ones near it: they may be one date in a spelling that is not known, such as 12.V.85."""
    for i in [*range(len(tokens)), *reversed(range(len(tokens)))]:
        if tokens[i].is_bare and not stays[i]:
            for j in _near(i, _REACH, tokens):
                stays[j] = stays[j] and (not tokens[j].is_bare or _is_measured(tokens, j))


def _near(i: int, reach: int, tokens: list[_Token]) -> range:
    return range(max(0, i - reach), min(i + reach + 1, len(tokens)))


def _joined(tokens: list[_Token], stays: list[bool]) -> str:
    text = ""
    for i, token in enumerate(tokens):
        if not stays[i]:
            continue
        if text:
            text += token.before if stays[i - 1] and _SEPARATOR.fullmatch(token.before) else " "
        text += token.text
    return text
