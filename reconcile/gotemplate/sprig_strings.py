"""Sprig's functions on texts. They count bytes, as Go does."""

from __future__ import annotations

import random
import unicodedata
from typing import Final

from reconcile.gotemplate.budget import spend
from reconcile.gotemplate.convert import to_text_value, to_texts
from reconcile.gotemplate.failures import CallError
from reconcile.gotemplate.fmt import to_string
from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.strconv import quote
from reconcile.gotemplate.values import STRING_MAP, Map, Slice, new_strings, to_bytes, to_text, without_strays

STRINGS: Final = Family()

_SPACES: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
_LATIN_SPACES: Final = frozenset(b"\t\n\v\f\r \x85\xa0")


def is_space(char: str) -> bool:
    """Go's `unicode.IsSpace`."""
    return char in _SPACES


def upper_char(char: str) -> str:
    """The upper case of one character, when that is one character too."""
    changed = char.upper()
    return changed if len(changed) == 1 else char


def lower_char(char: str) -> str:
    """The lower case of one character."""
    return "i" if char == "İ" else char.lower()


def _title_char(char: str) -> str:
    changed = char.title()
    return changed if len(changed) == 1 else char


@STRINGS.add("upper")
def _upper(text: str) -> str:
    return "".join(map(upper_char, without_strays(text)))


@STRINGS.add("lower")
def _lower(text: str) -> str:
    return "".join(map(lower_char, without_strays(text)))


@STRINGS.add("trim")
def _trim(text: str) -> str:
    return text.strip(_SPACES)


@STRINGS.add("title")
def _title(text: str) -> str:
    out, separated = [], True
    for char in without_strays(text):
        out.append(_title_char(char) if separated else char)
        separated = _separates(char)
    return "".join(out)


def _separates(char: str) -> bool:
    if char.isascii():
        return not (char.isalnum() or char == "_")
    return not (char.isalpha() or char.isdecimal()) and is_space(char)


@STRINGS.add("untitle")
def _untitle(text: str) -> str:
    out, first = [], True
    for char in without_strays(text):
        if is_space(char):
            first = True
        elif first:
            char, first = lower_char(char), False
        out.append(char)
    return "".join(out)


@STRINGS.add("swapcase")
def _swapcase(text: str) -> str:
    out, blank = [], True
    for char in without_strays(text):
        category = unicodedata.category(char)
        if category in {"Lu", "Lt"}:
            out.append(lower_char(char))
            blank = False
        elif category == "Ll":
            out.append(_title_char(char) if blank else upper_char(char))
            blank = False
        else:
            out.append(char)
            blank = is_space(char)
    return "".join(out)


@STRINGS.add("nospace")
def _nospace(text: str) -> str:
    data = to_bytes(text)
    kept = [byte for byte in data if byte not in _LATIN_SPACES]
    return text if len(kept) == len(data) else "".join(map(chr, kept))


@STRINGS.add("initials")
def _initials(text: str) -> str:
    out, gap = [], True
    for byte in to_bytes(text):
        if byte in _LATIN_SPACES:
            gap = True
        elif gap:
            out.append(chr(byte))
            gap = False
    return "".join(out)


@STRINGS.add("trunc")
def _trunc(count: int, text: str) -> str:
    data = to_bytes(text)
    if count < 0 < len(data) + count:
        return to_text(data[len(data) + count :])
    return to_text(data[:count]) if 0 <= count < len(data) else text


@STRINGS.add("substr")
def _substring(start: int, end: int, text: str) -> str:
    data = to_bytes(text)
    size = len(data)
    if start < 0:
        return to_text(data[: _bound(end, size)])
    if end < 0 or end > size:
        if start > size:
            raise CallError(f"runtime error: slice bounds out of range [{start}:{size}]")
        return to_text(data[start:])
    if start > end:
        raise CallError(f"runtime error: slice bounds out of range [{start}:{end}]")
    return to_text(data[start:end])


def _bound(end: int, size: int) -> int:
    if end < 0:
        raise CallError(f"runtime error: slice bounds out of range [:{end}]")
    if end > size:
        raise CallError(f"runtime error: slice bounds out of range [:{end}] with length {size}")
    return end


def repeat(text: str, count: int) -> str:
    """`text` `count` times, within the budget."""
    if count < 0:
        raise CallError("strings: negative Repeat count")
    spend(len(text) * count)
    return text * count


@STRINGS.add("repeat")
def _repeat(count: int, text: str) -> str:
    return repeat(text, count)


def replace_all(text: str, old: str, new: str) -> str:
    """Go's `strings.Replace` of all; an empty `old` matches between all characters."""
    spend(text.count(old) * len(new))
    return text.replace(old, new)


@STRINGS.add("replace")
def _replace(old: str, new: str, text: str) -> str:
    return replace_all(text, old, new)


@STRINGS.add("trimAll", "trimall")
def _trim_all(chars: str, text: str) -> str:
    return text.strip(chars) if chars else text


@STRINGS.add("trimSuffix")
def _trim_suffix(suffix: str, text: str) -> str:
    return text.removesuffix(suffix)


@STRINGS.add("trimPrefix")
def _trim_prefix(prefix: str, text: str) -> str:
    return text.removeprefix(prefix)


@STRINGS.add("contains")
def _contains(part: str, text: str) -> bool:
    return part in text


@STRINGS.add("hasPrefix")
def _has_prefix(prefix: str, text: str) -> bool:
    return text.startswith(prefix)


@STRINGS.add("hasSuffix")
def _has_suffix(suffix: str, text: str) -> bool:
    return text.endswith(suffix)


@STRINGS.add("quote")
def _quote(*values: object) -> str:
    return " ".join(quote(to_text_value(value)) for value in values if value is not None)


@STRINGS.add("squote")
def _squote(*values: object) -> str:
    return " ".join(f"'{to_string(value)}'" for value in values if value is not None)


@STRINGS.add("cat")
def _cat(*values: object) -> str:
    return " ".join(to_string(value) for value in values if value is not None)


@STRINGS.add("indent")
def _indent(spaces: int, text: str) -> str:
    pad = repeat(" ", spaces)
    return pad + replace_all(text, "\n", "\n" + pad)


@STRINGS.add("nindent")
def _nindent(spaces: int, text: str) -> str:
    return "\n" + _indent(spaces, text)


@STRINGS.add("plural")
def _plural(one: str, many: str, count: int) -> str:
    return one if count == 1 else many


@STRINGS.add("toString")
def _to_string(value: object) -> str:
    return to_text_value(value)


@STRINGS.add("abbrev")
def _abbrev(width: int, text: str) -> str:
    return text if width < 4 else to_text(_abbreviate(to_bytes(text), 0, width))


@STRINGS.add("abbrevboth")
def _abbrev_both(left: int, right: int, text: str) -> str:
    return text if right < 4 or (left > 0 and right < 7) else to_text(_abbreviate(to_bytes(text), left, right))


def _abbreviate(data: bytes, offset: int, width: int) -> bytes:
    if len(data) <= width:
        return data
    offset = min(offset, len(data))
    if len(data) - offset < width - 3:
        offset = len(data) - (width - 3)
    if offset <= 4:
        return data[: width - 3] + b"..."
    if width < 7:
        return b""
    if offset + width - 3 < len(data):
        return b"..." + _abbreviate(data[offset:], 0, width - 3)
    return b"..." + data[len(data) - (width - 3) :]


@STRINGS.add("wrap")
def _wrap(width: int, text: str) -> str:
    return _wrapped(text, width, "", long_words=False)


@STRINGS.add("wrapWith")
def _wrap_with(width: int, separator: str, text: str) -> str:
    return _wrapped(text, width, separator, long_words=True)


def _wrapped(text: str, width: int, separator: str, *, long_words: bool) -> str:
    data, width, newline = to_bytes(text), max(width, 1), to_bytes(separator or "\n")
    out: list[bytes] = []
    at = 0
    while len(data) - at > width:
        if data[at] == 0x20:
            at += 1
            continue
        spend(len(newline))
        blank = data.rfind(b" ", at, at + width + 1)
        if blank < 0 and long_words:
            out += [data[at : at + width], newline]
            at += width
            continue
        blank = blank if blank >= 0 else data.find(b" ", at + width)
        if blank < 0:
            out.append(data[at:])
            at = len(data)
        else:
            out += [data[at:blank], newline]
            at = blank + 1
    return to_text(b"".join([*out, data[at:]]))


@STRINGS.add("shuffle")
def _shuffle(text: str) -> str:
    return "".join(random.sample(text, len(text)))


@STRINGS.add("join")
def _join(separator: str, value: object) -> str:
    texts = to_texts(value)
    spend(len(separator) * len(texts) + sum(map(len, texts)))
    return separator.join(texts)


def split_text(text: str, separator: str, limit: int = -1) -> list[str]:
    """Go's `strings.SplitN`: a negative limit means all parts, 0 none; an empty separator splits into characters."""
    if limit == 0:
        return []
    spend(text.count(separator))
    if separator:
        return text.split(separator, limit - 1 if limit > 0 else -1)
    if 0 < limit < len(text):
        return [*text[: limit - 1], text[limit - 1 :]]
    return list(text)


def _numbered(parts: list[str]) -> Map:
    return Map(STRING_MAP, {f"_{place}": part for place, part in enumerate(parts)})


@STRINGS.add("split")
def _split(separator: str, text: str) -> Map:
    return _numbered(split_text(text, separator))


@STRINGS.add("splitn")
def _split_n(separator: str, limit: int, text: str) -> Map:
    return _numbered(split_text(text, separator, limit))


@STRINGS.add("splitList")
def _split_list(separator: str, text: str) -> Slice:
    return new_strings(split_text(text, separator))


@STRINGS.add("toStrings")
def _to_strings(value: object) -> Slice:
    return new_strings(to_texts(value))


@STRINGS.add("hello")
def _hello() -> str:
    return "Hello!"


@STRINGS.add("fail")
def _fail(message: str) -> str:
    raise CallError(message)
