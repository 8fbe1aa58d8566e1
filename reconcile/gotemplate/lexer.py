"""The words of a template: text, and what stands between the double braces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reconcile.gotemplate.strconv import quote

_SPACE: Final = " \t\r\n"
_KEYWORDS: Final = frozenset({"block", "break", "continue", "else", "end", "define", "if", "nil", "range", "template", "with"})
_SINGLE: Final = {"=": "assign", "|": "pipe"}
_QUOTES: Final = {'"': ("string", "unterminated quoted string"), "'": ("char constant", "unterminated character constant")}


@dataclass(frozen=True, slots=True)
class Token:
    """One word. `kind` is a keyword, or one of: text, left delim, right delim, space, pipe, assign, declare, string,
    raw string, char constant, number, complex, bool, dot, field, variable, identifier, left paren, right paren, char, eof or
    error."""

    kind: str
    at: int
    text: str
    line: int

    def __str__(self) -> str:
        if self.kind == "eof":
            return "EOF"
        if self.kind == "error":
            return self.text
        if self.kind == "dot" or self.kind in _KEYWORDS:
            return f"<{self.text}>"
        return f"{quote(self.text[:10])}..." if len(self.text.encode("utf-8", "surrogateescape")) > 10 else quote(self.text)


class _LexError(Exception):
    pass


def is_alphanumeric(char: str) -> bool:
    """Whether a character may stand in a name."""
    return char == "_" or char.isalpha() or char.isdecimal()


def lex(text: str, functions: frozenset[str] = frozenset()) -> list[Token]:
    """All tokens of a template, ending with one of kind `eof` or `error`. `functions` may hide `break` and `continue`."""
    return _Lexer(text, functions).run()


class _Lexer:
    def __init__(self, text: str, functions: frozenset[str]) -> None:
        self.text = text
        self.at = 0
        self.start = 0
        self.line = 1
        self.line_at = 0
        self.parens = 0
        self.tokens: list[Token] = []
        self.hidden = functions & {"break", "continue"}

    def run(self) -> list[Token]:
        try:
            while self._text():
                while self._inside():
                    pass
        except _LexError as error:
            self.tokens.append(Token("error", self.start, str(error), self._line()))
        return self.tokens

    def _line(self) -> int:
        self.line += self.text.count("\n", self.line_at, self.start)
        self.line_at = self.start
        return self.line

    def _emit(self, kind: str) -> bool:
        self.tokens.append(Token(kind, self.start, self.text[self.start : self.at], self._line()))
        self.start = self.at
        return True

    def _peek(self, offset: int = 0) -> str:
        return self.text[self.at + offset : self.at + offset + 1]

    def _text(self) -> bool:
        """Up to the next action; False at the end of the template."""
        while True:
            opening = self.text.find("{{", self.at)
            if opening < 0:
                self.at = len(self.text)
                if self.at > self.start:
                    self._emit("text")
                self._emit("eof")
                return False
            trim = self.text[opening + 2 : opening + 3] == "-" and self.text[opening + 3 : opening + 4] in tuple(_SPACE)
            before = self.text[self.start : opening]
            self.at = self.start + len(before.rstrip(_SPACE) if trim else before)
            if self.at > self.start:
                self._emit("text")
            self.start, self.at = opening, opening + 2
            inner = self.at + (2 if trim else 0)
            if self.text.startswith("/*", inner):
                self._comment(inner)
                continue
            self._emit("left delim")
            self.start = self.at = inner
            self.parens = 0
            return True

    def _comment(self, opening: int) -> None:
        self.start = opening
        closing = self.text.find("*/", opening + 2)
        if closing < 0:
            raise _LexError("unclosed comment")
        self.at = closing + 2
        width = self._right_delim()
        if not width:
            raise _LexError("comment ends before closing delimiter")
        self.at += width
        if width > 2:
            self._skip_space()
        self.start = self.at

    def _right_delim(self) -> int:
        """The length of the closing delimiter that stands here, with its trim marker; 0 when there is none."""
        if self.text.startswith("}}", self.at):
            return 2
        return 4 if self._peek() in tuple(_SPACE) and self.text.startswith("-}}", self.at + 1) else 0

    def _skip_space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1

    def _inside(self) -> bool:
        """One token of an action; False behind its end."""
        width = self._right_delim()
        if width:
            if self.parens:
                raise _LexError("unclosed left paren")
            self.start = self.at + width - 2
            self.at += width
            self._emit("right delim")
            if width > 2:
                self._skip_space()
                self.start = self.at
            return False
        char = self._peek()
        if not char:
            raise _LexError("unclosed action")
        if char in _SPACE:
            return self._blank()
        self.at += 1
        if char in _SINGLE:
            return self._emit(_SINGLE[char])
        if char == ":":
            self.at += 1
            if self.text[self.at - 1 : self.at] != "=":
                raise _LexError("expected :=")
            return self._emit("declare")
        if char in "()":
            return self._paren(char)
        if char in _QUOTES:
            return self._quoted(char)
        if char == "`":
            closing = self.text.find("`", self.at)
            if closing < 0:
                raise _LexError("unterminated raw quoted string")
            self.at = closing + 1
            return self._emit("raw string")
        return self._word(char)

    def _blank(self) -> bool:
        while self._peek() and self._peek() in _SPACE:
            self.at += 1
        if self.text.startswith("-}}", self.at):
            self.at -= 1
            if self.at == self.start:
                return True
        return self._emit("space")

    def _paren(self, char: str) -> bool:
        self.parens += 1 if char == "(" else -1
        if self.parens < 0:
            raise _LexError("unexpected right paren")
        return self._emit("left paren" if char == "(" else "right paren")

    def _quoted(self, opening: str) -> bool:
        kind, unterminated = _QUOTES[opening]
        while True:
            char = self._peek()
            self.at += 1
            if char == "\\":
                char = self._peek()
                self.at += 1
                if char and char != "\n":
                    continue
            if not char or char == "\n":
                raise _LexError(unterminated)
            if char == opening:
                return self._emit(kind)

    def _word(self, char: str) -> bool:
        if char == "$":
            return self._field("variable")
        if char == "." and (not self._peek() or self._peek() not in "0123456789"):
            if self.at < len(self.text):
                return self._field("field")
            char = "."
        if char in ".+-" or char in "0123456789":
            self.at -= 1
            return self._number()
        if is_alphanumeric(char):
            return self._identifier()
        if char.isascii() and char.isprintable():
            return self._emit("char")
        raise _LexError(f"unrecognized character in action: {_unicode(char)}")

    def _name(self) -> None:
        while self._peek() and is_alphanumeric(self._peek()):
            self.at += 1
        if not self._terminated():
            raise _LexError(f"bad character {_unicode(self._peek())}")

    def _field(self, kind: str) -> bool:
        if self._terminated():
            return self._emit("variable" if kind == "variable" else "dot")
        self._name()
        return self._emit(kind)

    def _identifier(self) -> bool:
        self._name()
        word = self.text[self.start : self.at]
        if word in _KEYWORDS and word not in self.hidden:
            return self._emit(word)
        return self._emit("bool" if word in {"true", "false"} else "identifier")

    def _terminated(self) -> bool:
        char = self._peek()
        return not char or char in _SPACE or char in ".,|:)(" or self.text.startswith("}}", self.at)

    def _number(self) -> bool:
        good = self._scan_number()
        if not good:
            raise _LexError(f"bad number syntax: {quote(self.text[self.start : self.at])}")
        if self._peek() and self._peek() in "+-":
            if not self._scan_number() or self.text[self.at - 1] != "i":
                raise _LexError(f"bad number syntax: {quote(self.text[self.start : self.at])}")
            return self._emit("complex")
        return self._emit("number")

    def _accept(self, valid: str) -> bool:
        if self._peek() and self._peek() in valid:
            self.at += 1
            return True
        return False

    def _accept_run(self, valid: str) -> None:
        while self._accept(valid):
            pass

    def _scan_number(self) -> bool:
        self._accept("+-")
        digits = "0123456789_"
        if self._accept("0"):
            if self._accept("xX"):
                digits = "0123456789abcdefABCDEF_"
            elif self._accept("oO"):
                digits = "01234567_"
            elif self._accept("bB"):
                digits = "01_"
        self._accept_run(digits)
        if self._accept("."):
            self._accept_run(digits)
        marks = {11: "eE", 23: "pP"}.get(len(digits))
        if marks and self._accept(marks):
            self._accept("+-")
            self._accept_run("0123456789_")
        self._accept("i")
        if self._peek() and is_alphanumeric(self._peek()):
            self.at += 1
            return False
        return True


def _unicode(char: str) -> str:
    code = ord(char)
    return f"U+{code:04X} '{char}'" if char.isprintable() else f"U+{code:04X}"
