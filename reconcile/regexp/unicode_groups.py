"""Names of character groups in `\\p{…}` and `[[:…:]]` as Go's regexp knows them. Pure.

Since Go 1.25 case, blanks, `_` and `-` do not count in the names of Unicode groups.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from functools import lru_cache

POSIX = frozenset(
    "alnum alpha ascii blank cntrl digit graph lower print punct space upper word xdigit".split()  # noqa: SIM905
)

_SCRIPTS = """
Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki Bopomofo Brahmi Braille
Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Chorasmian Common Coptic Cuneiform Cypriot
Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs Elbasan Elymaic Ethiopic Georgian
Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Han Hangul Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana
Imperial_Aramaic Inherited Inscriptional_Pahlavi Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kawi Kayah_Li Kharoshthi
Khitan_Small_Script Khmer Khojki Khudawadi Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam
Mandaic Manichaean Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi
Mongolian Mro Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong Ogham Ol_Chiki
Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian Old_Turkic Old_Uyghur Oriya Osage
Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada Shavian
Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet
Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi
Zanabazar_Square
"""
_CATEGORIES = "Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs"
_ALIASES = """
Cased_Letter=LC Close_Punctuation=Pe Combining_Mark=M Connector_Punctuation=Pc Control=Cc Currency_Symbol=Sc Dash_Punctuation=Pd
Decimal_Number=Nd Enclosing_Mark=Me Final_Punctuation=Pf Format=Cf Initial_Punctuation=Pi Letter=L Letter_Number=Nl
Line_Separator=Zl Lowercase_Letter=Ll Mark=M Math_Symbol=Sm Modifier_Letter=Lm Modifier_Symbol=Sk Nonspacing_Mark=Mn Number=N
Open_Punctuation=Ps Other=C Other_Letter=Lo Other_Number=No Other_Punctuation=Po Other_Symbol=So Paragraph_Separator=Zp
Private_Use=Co Punctuation=P Separator=Z Space_Separator=Zs Spacing_Mark=Mc Surrogate=Cs Symbol=S Titlecase_Letter=Lt
Unassigned=Cn Uppercase_Letter=Lu cntrl=Cc digit=Nd punct=P
"""
# What the C++ engine does not know, or knows differently (its C leaves out what is not assigned).
_COMPUTED: dict[str, Callable[[str], bool]] = {
    "ASCII": str.isascii,
    "Assigned": lambda char: unicodedata.category(char) != "Cn",
    "C": lambda char: unicodedata.category(char)[0] == "C",
    "Cn": lambda char: unicodedata.category(char) == "Cn",
    "LC": lambda char: unicodedata.category(char) in {"Lu", "Ll", "Lt"},
}


def _folded(name: str) -> str:
    return name.translate({ord(c): None for c in " _-"}).lower()


_KNOWN = {_folded(name): name for name in ("Any", *_COMPUTED, *_SCRIPTS.split(), *_CATEGORIES.split())}
_KNOWN |= {_folded(alias): name for alias, _, name in (pair.partition("=") for pair in _ALIASES.split())}


def class_item(name: str, negated: bool) -> str | None:
    """What stands for `\\p{name}` (or `\\P{name}`) inside a bracket expression of the C++ engine; None for an unknown name."""
    known = _KNOWN.get(_folded(name))
    if known is None:
        return None
    return _ranges(known, negated) if known in _COMPUTED else f"\\{'P' if negated else 'p'}{{{known}}}"


@lru_cache(maxsize=2 * len(_COMPUTED))
def _ranges(name: str, negated: bool) -> str:
    belongs = _COMPUTED[name]
    edges = [0] if belongs("\0") != negated else []
    last = bool(edges)
    for code in range(1, sys.maxunicode + 1):
        now = belongs(chr(code)) != negated
        if now != last:
            edges.append(code)
            last = now
    if last:
        edges.append(sys.maxunicode + 1)
    return "".join(f"\\x{{{low:X}}}-\\x{{{end - 1:X}}}" for low, end in zip(edges[::2], edges[1::2], strict=True))
