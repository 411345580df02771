"""Descriptions: the known words stay, and nothing that names or dates anybody."""

import re
import runpy
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomrx.deid import descriptors
from dicomrx.deid.descriptors import clean, vocabulary
from dicomrx.deid.spellings import WORD, of_date

NOBODY: frozenset[str] = frozenset()
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_vocabulary.py"
# Written apart from the code: letters around at most three digits, decimals, matrices.
NUMBER = re.compile(r"[a-z]{0,3}(?!0\d)\d{1,3}(?:[.,]\d{1,3})?(?:[a-z]{0,4}|(?:x\d{1,3}(?:[.,]\d+)?)+[a-z]{0,2})", re.ASCII)
TOKEN = re.compile(r"[TRtr]2\*\w*|[^\W_]+(?:(?<=\d)[.,](?=\d)[^\W_]+)*")

PRACTICE = [
    # German
    ("CT Thorax mit KM, 5 mm, Hr. Müller geb. 12.03.1985", "CT Thorax mit KM, 5 mm"),
    ("MRT Schädel nativ + KM", "MRT Schädel nativ + KM"),
    ("LWS in 2 Ebenen", "LWS 2 Ebenen"),
    ("HWS seitlich im Stehen", "HWS seitlich Stehen"),
    ("Kniegelenk li. a.p. und seitl.", "Kniegelenk li und"),
    ("Thorax liegend Bett 12 Station 3B", "Thorax liegend"),
    ("Becken-Bein-Angio CT", "Becken-Bein-Angio CT"),
    ("Hüfte rechts axial, Fr. Meier *1.4.52", "Hüfte rechts axial"),
    ("Mammographie bds. MLO", "Mammographie bds. MLO"),
    ("MRT Knie re o. KM 3T", "MRT Knie re o. KM 3T"),
    ("Thorax w 93, Becken m/94", "Thorax w Becken m"),
    ("CT-Abdomen portalvenös 1,25mm B30f", "CT-Abdomen portalvenös 1,25mm B30f"),
    ("Staging Thorax/Abdomen, Dr. Schulz 0171/2345678", "Staging Thorax/Abdomen"),
    ("OSG links Fuß Ferse", "OSG links Fuß Ferse"),
    # English
    ("CT chest abdomen pelvis - 55F Dr. Smith", "CT chest abdomen pelvis"),
    ("CT HEAD W/O CONTRAST", "CT HEAD W/O CONTRAST"),
    ("MRI Brain w/wo contrast 3/14/2019", "MRI Brain w/wo contrast"),
    ("t1_mprage_sag_p2_iso", "t1_mprage_sag_p2_iso"),
    ("AX T2* GRE", "AX T2* GRE"),
    ("T1 +C SAG FS", "T1 +C SAG FS"),
    ("ep2d_diff_b0_b500_b800_TRACEW", "ep2d_diff_b0_b500_b800_TRACEW"),
    ("L4/5 L5-S1 C5/6 Th11/12", "L4/5 L5-S1 C5/6 Th11/12"),
    ("AbdomenRoutine  5.0  B30f", "AbdomenRoutine 5.0 B30f"),
    ("HeadNeckAngio 0.75 I26s 3", "HeadNeckAngio 0.75 I26s 3"),
    ("SAG STIR 512x512 1.5T 4DCT", "SAG STIR 512x512 1.5T 4DCT"),
    ("PET-CT 18F-FDG wholebody 60 min", "PET-CT 18F-FDG wholebody 60 min"),
    ("Ax FLAIR John Doe MRN 00123456", "Ax FLAIR"),
    ("Topogram 120kV 35 mAs", "Topogram 120kV 35 mAs"),
    ("portable chest, room 12 bed 3", "portable chest"),
    ("CTA COW 0.625", "CTA COW 0.625"),
    ("RoutineHead^Smith", "RoutineHead"),
    ("HeadSmith routine", "Head routine"),
    ("phone (212) 555-1234 knee", "knee"),
    ("LAO 30 CRAN", "LAO 30"),
    # French
    ("IRM de l'épaule droite sans injection", "IRM épaule droite sans injection"),
    ("Scanner thoracique injecté - Mme Dupont née le 3 mars 1962", "Scanner thoracique injecté"),
    ("Crâne et rachis cervical", "Crâne et rachis cervical"),
    ("Genou gauche face + profil", "Genou gauche face + profil"),
    ("Coupes fines 1 mm parenchyme", "Coupes fines 1 mm parenchyme"),
    # Spanish
    ("TAC cráneo simple y contrastado 12/03/85", "TAC cráneo simple contrastado"),
    ("RM rodilla izquierda T1 sag 3mm", "RM rodilla izquierda T1 sag 3mm"),
    ("Tórax PA, Sra. García 3 de marzo de 1985", "Tórax PA"),
    ("Ecografía abdominal sin contraste", "Ecografía abdominal sin contraste"),
    # Italian
    ("RM ginocchio destro senza mdc", "RM ginocchio destro senza mdc"),
    ("Eco addome superiore dell'anca dx", "Eco addome superiore anca dx"),
    ("TC torace con mdc, Sig. Rossi nato 12-3-1950", "TC torace mdc"),
    ("Rachide lombosacrale 2 proiezioni", "Rachide lombosacrale 2 proiezioni"),
    # Dutch
    ("CT hoofd zonder contrast 1.5mm", "CT hoofd zonder contrast 1.5mm"),
    ("X-thorax staand, dhr. Jansen geb 5-11-1948", "thorax staand"),
    ("MRI knie links, schouder rechts", "MRI knie links, schouder rechts"),
]

# Words that carry no number, so that every digit of the output would be one of the date.
CONTEXT = st.sampled_from(["", "CT Thorax", "Kopf", "MRT Schädel nativ", "Genou", "Rodilla T", "knee", "und", "Foo", "le", "(", "*", "'"])
JOINT = st.sampled_from([" ", "  ", ", ", "_", "-", "/", ":", ".", "(", " am ", " geb. ", " von "])
MONTHS = [
    ("Jan", "january", "Januar", "janvier", "enero", "gennaio", "januari"),
    ("Feb", "february", "Februar", "févr.", "febrero", "febbraio", "februari"),
    ("Mar", "march", "März", "mars", "marzo", "mrt", "maart"),
    ("Apr", "april", "April", "avril", "abril", "aprile", "apr."),
    ("May", "may", "Mai", "mai", "mayo", "mag", "mei"),
    ("Jun", "june", "Juni", "juin", "junio", "giugno", "juni"),
    ("Jul", "july", "Juli", "juillet", "julio", "luglio", "juli"),
    ("Aug", "august", "Aug.", "août", "agosto", "ago", "augustus"),
    ("Sep", "september", "Sept.", "septembre", "septiembre", "settembre", "set"),
    ("Oct", "october", "Okt", "octobre", "octubre", "ottobre", "oktober"),
    ("Nov", "november", "Nov.", "novembre", "noviembre", "novembre", "nov"),
    ("Dec", "december", "Dez.", "décembre", "diciembre", "dicembre", "dec"),
]
ROMAN = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]


def spellings(year: int, month: int, day: int) -> list[str]:
    """A date as people write it, with every part, with two digits of the year, and without the year."""
    made = list(of_date(f"{year:04}", f"{month:02}", f"{day:02}"))
    for d, m in {(f"{day:02}", f"{month:02}"), (str(day), str(month))}:
        for y in (f"{year:04}", f"{year % 100:02}"):
            made += [f"{d}{s}{m}{s}{y}" for s in (".", "/", "-", " ", ". ", " / ", " - ", ":", "_", ",")]
            made += [f"{m}{s}{d}{s}{y}" for s in ("/", "-", " ")] + [f"{y}{s}{m}{s}{d}" for s in (".", "/", "-", " ", "_")]
            made += [f"{m}{s}{y}" for s in ("/", "-", " / ")] + [f"{d}.{ROMAN[month - 1]}.{y}"]
            for name in MONTHS[month - 1]:
                made += [f"{d} {name} {y}", f"{d}. {name} {y}", f"{d}-{name}-{y}", f"{name} {d}, {y}", f"{d}{name}{y}", f"{d}_{name}_{y}"]
                made += [f"{name} {y}", f"{d}.{name}.{y}", f"{d} {name}{y}", f"{y} {name} {d}", f"{d}th of {name} {y}", f"{d}er {name} {y}"]
            made += [f"{d} de {name} de {y}" for name in MONTHS[month - 1][3:5]]
        made += [f"{d}.{m}.", f"{d}/{m}"]
    return made


DATES = st.dates().filter(lambda date: date.year >= 1850).flatmap(lambda date: st.sampled_from(spellings(date.year, date.month, date.day)))
MIXED = st.lists(
    st.one_of(
        st.sampled_from(sorted(vocabulary())),
        st.sampled_from(
            ["T1", "L4/5", "5 mm", "B30f", "0.625", "12", "03", "85", "12.03", "1985", "70%", "b0", "3x3x3", "Hr.", "März", "Müller"]
        ),
        st.text(max_size=5),
        DATES,
    ),
    max_size=8,
).flatmap(
    lambda parts: st.lists(JOINT, min_size=len(parts), max_size=len(parts)).map(
        lambda joints: "".join(map("".join, zip(parts, joints, strict=True)))
    )
)


def folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())


@pytest.mark.parametrize(("text", "cleaned"), PRACTICE, ids=[text for text, _ in PRACTICE])
def test_descriptions_of_daily_practice_keep_what_a_researcher_needs(text: str, cleaned: str) -> None:
    assert clean(text, NOBODY) == cleaned


@given(MIXED)
def test_every_word_that_stays_is_in_the_vocabulary_or_a_number_by_rule(text: str) -> None:
    for token in TOKEN.findall(clean(text, NOBODY)):
        parts = re.split(r"(?<=[^\W\d_A-Z])(?=[^\W\d_a-z])", token)
        assert folded(token) in vocabulary() or all(folded(part) in vocabulary() for part in parts) or NUMBER.fullmatch(folded(token)), (
            token
        )


@given(MIXED)
def test_no_run_of_four_digits_stays(text: str) -> None:
    assert not re.search(r"\d{4}", clean(text, NOBODY))


@given(st.one_of(MIXED, st.text()))
def test_cleaning_again_changes_nothing_and_nothing_grows(text: str) -> None:
    cleaned = clean(text, NOBODY)
    assert clean(cleaned, NOBODY) == cleaned
    assert len(cleaned) <= len(text)
    assert cleaned == cleaned.strip()


@given(MIXED, st.lists(st.sampled_from(sorted(vocabulary())), max_size=4), st.data())
def test_own_words_never_stay_even_if_the_vocabulary_has_them(text: str, names: list[str], data: st.DataObject) -> None:
    own = frozenset(WORD.findall(folded(text + " " + " ".join(names)))) if data.draw(st.booleans()) else frozenset(names)
    described = text + " " + " ".join(name.upper() for name in names)
    assert own.isdisjoint(WORD.findall(folded(clean(described, own))))


@given(CONTEXT, JOINT, DATES, JOINT, CONTEXT)
def test_dates_never_stay_whole_or_in_part(before: str, joint: str, date: str, other: str, after: str) -> None:
    assert not re.search(r"\d", clean(before + joint + date + other + after, NOBODY))


@pytest.mark.parametrize(
    "text",
    [
        "\u0661\u0662.\u0660\u0663.\u0661\u0669\u0668\u0665",
        "\uff11\uff12/\uff10\uff13/\uff18\uff15",
        "12\u200b.03.1985",
        "10.V.99 geb.",
        "1.I.00",
        "11.X.2000",
        "12 Foo 85",
        "12.03 Kopf",
        "12.3. Kopf",
        "12.03 T",
        "S12-03-85",
        "T12/3",
        "tel 0171 234 567",
        "+49 (0)30 12 34 56",
        "123 456",
        "14:30",
        "A1234567",
        "0012",
        "M055Y",
        "F55",
        "55 J",
        "AB-12-34-56",
        "1.2.840.10008.5.1",
    ],
)
def test_what_is_like_a_date_a_telephone_an_age_a_time_or_an_id_never_stays(text: str) -> None:
    assert not re.search(r"\d", clean(text, NOBODY))


def test_own_words_are_found_in_any_case_and_composition() -> None:
    own = frozenset({"head", "schädel", "knie"})
    assert clean("CT HEAD, Scha\u0308del, K\u200bnie, Thorax", own) == "CT Thorax"


def test_a_number_of_the_patients_own_never_stays() -> None:
    assert clean("Thorax 5 mm", frozenset({"5"})) == "Thorax mm"
    assert clean("Thorax 1.5 mm", frozenset({"5"})) == "Thorax mm"


def test_words_behind_a_title_are_a_name() -> None:
    assert clean("Thorax nativ, Dr. Hand", NOBODY) == "Thorax nativ"


def test_no_word_of_the_vocabulary_is_a_month_or_a_title() -> None:
    assert vocabulary().isdisjoint(descriptors._MONTHS | descriptors._TITLES)


def test_the_vocabulary_is_what_its_script_makes() -> None:
    assert sorted(vocabulary()) == runpy.run_path(str(SCRIPT))["vocabulary"]()
    assert len(vocabulary()) > 3000


def test_every_word_of_the_vocabulary_stays_when_it_stands_alone() -> None:
    assert [word for word in sorted(vocabulary()) if clean(word, NOBODY) != word] == []
