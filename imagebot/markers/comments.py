"""Which node a comment belongs to, as Flux's YAML library decides it. Pure.

Between two nodes there is a gap: white space, punctuation, anchors, tags and comments. A comment on the line of some token is a
line comment; comments on lines of their own form groups, and a group is the head of what follows or the foot of what came before.
Only gaps that hold a marker, and their neighbours, are ever looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from imagebot.markers.outline import BREAKS, Kind, Node, Piece

_TOKEN: Final = re.compile(
    rf"(?P<blank>[ \t\ufeff]+)|(?P<line>\r\n|[{BREAKS}])|(?P<comment>#[^{BREAKS}]*)|(?P<mark>---|\.\.\.)"
    rf"|(?P<property>&[0-9A-Za-z_-]+|!(?:<[^>\s]*>|[^\s,\[\]{{}}]*))|(?P<sign>[-?:,])|(?P<other>.)"
)
_HEADER: Final = re.compile(rf"[|>][-+0-9]*[ \t]*(#[^{BREAKS}]*)?")
_FAR: Final = 4096
_BREAK: Final = re.compile(rf"\r\n|[{BREAKS}]")


@dataclass(slots=True)
class Comment:
    """A comment (or a group of comment lines): its text, where it starts, its line and column (from 0 in the piece)."""

    text: str
    start: int
    line: int
    column: int = 0
    dash: int = -1  # where the dash is that it stands behind, on one line
    lost: str = ""  # why it belongs to nothing


@dataclass(slots=True)
class Comments:
    """What nodes (by index) have for comments, and the comments that belong to no node that could use them."""

    line: dict[int, list[Comment]] = field(default_factory=dict)
    head: dict[int, list[Comment]] = field(default_factory=dict)
    loose: list[Comment] = field(default_factory=list)
    gaps: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Token:
    """The token before a stretch of white space: `what` is a sign, `property`, `mark`, `node`, or empty at the very beginning."""

    what: str
    start: int
    line: int
    column: int


class GapReader:
    """Reads the gaps of one piece on demand. Gap `i` lies before node `i`; the last one is after all nodes."""

    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self.found = Comments()

    def read(self, gap: int) -> None:
        """Assign every comment in the gap (and in the header of the block scalar before it)."""
        if gap in self.found.gaps or not 0 <= gap <= len(self.piece.nodes):
            return
        self.found.gaps.add(gap)
        _Gap(self.piece, gap, self.found).read()


class _Gap:
    """One gap while it is read from left to right."""

    def __init__(self, piece: Piece, gap: int, found: Comments) -> None:
        nodes = piece.nodes
        self.piece, self.gap, self.found = piece, gap, found
        self.before: Node | None = nodes[gap - 1] if gap else None
        self.after: Node | None = nodes[gap] if gap < len(nodes) else None
        self.start = self.before.end if self.before else 0
        self.end = self.after.start if self.after else piece.unread
        self.flow = bool(self.after and (self.after.flow or self.after.kind is Kind.FLOW_END) and self.in_flow(self.before))
        self.indent = self.before.indent if self.before else 0
        self.heads: list[Comment] = []  # that may still belong to the node behind the gap
        self.line_start = -1  # of the line that is being read, once it is known

    @staticmethod
    def in_flow(before: Node | None) -> bool:
        return before is not None and (before.flow or before.kind is Kind.FLOW_START)

    def read(self) -> None:
        """Assign every comment in the gap."""
        self.header()
        newlines = self.breaks_taken()
        line = self.line_at(self.start)
        token = _Token("node" if self.before else "", self.before.start if self.before else 0, line - newlines, 0)
        previous = token
        run: list[Comment] = []  # comment lines of their own since the last token
        breaks: list[int] = []  # how many line breaks before each of them
        for match in _TOKEN.finditer(self.piece.text, self.start, self.end):
            what = match.lastgroup or "other"
            if what == "blank":
                continue
            if what == "line":
                newlines += 1
                line += 1
                self.line_start = match.end()
            elif what == "comment":
                comment = Comment(match[0], match.start(), line)
                if newlines or token.what in ("", "-", "mark"):
                    comment.column = self.column_at(match.start())
                    comment.dash = token.start if token.what == "-" and not newlines and not run else -1
                    run.append(comment)
                    breaks.append(newlines)
                else:
                    self.line_comment(comment, token, previous)
                newlines = 0
            else:
                if run:
                    self.group(run, [*breaks, newlines], token, previous, self.column_at(match.start()))
                    run, breaks = [], []
                newlines = 0
                sign = match[0] if what == "sign" else what
                if sign == "-":
                    self.settle_dash()
                column = self.column_at(match.start()) if sign == "-" else 0
                previous, token = token, _Token(sign, match.start(), line, column)
        if run and self.after is not None:
            closing = self.after.kind is Kind.FLOW_END
            self.group(run, [*breaks, newlines], token, previous, self.column_at(self.end), closing)
        elif run:
            for comment in run:
                self.foot(comment)
        self.settle_heads()

    def header(self) -> None:
        """A comment on the header line of a block scalar is that scalar's line comment."""
        before = self.before
        if before is None or before.style not in ("|", ">"):
            return
        match = _HEADER.match(self.piece.text, before.start, before.end)
        if match and match[1]:
            comment = Comment(match[1], match.start(1), before.line)
            self.found.line.setdefault(self.gap - 1, []).append(comment)

    def breaks_taken(self) -> int:
        """How many line breaks at its end belong to the block scalar before the gap."""
        before = self.before
        if before is None or before.style not in ("|", ">"):
            return 0
        source = self.piece.text[before.start : before.end]
        return len(_BREAK.findall(source, len(source.rstrip())))

    def line_at(self, position: int) -> int:
        if self.before is None:
            return 0
        return self.before.line + len(_BREAK.findall(self.piece.text, self.before.start, position))

    def column_at(self, position: int) -> int:
        """Column of a position on the line that is being read; on the first line of a gap not more than `_FAR`."""
        if self.line_start < 0:
            text, start = self.piece.text, self.start
            stop = max(start - _FAR, 0)
            while start > stop and text[start - 1] not in BREAKS:
                start -= 1
            self.line_start = start
        return position - self.line_start

    # --- line comments

    def line_comment(self, comment: Comment, token: _Token, previous: _Token) -> None:
        """A comment behind `token` on its line. Behind `,` in flow and `:` in block context it is that of the token before."""
        owner = previous if token.what == ("," if self.flow else ":") else token
        if owner.what == "node":
            self.found.line.setdefault(self.gap - 1, []).append(comment)
        elif self.after is None or self.after.closed or self.after.empty >= owner.start:
            comment.lost = "there is no value before it"
            self.found.loose.append(comment)
        else:
            self.found.line.setdefault(self.gap, []).append(comment)

    # --- comments on lines of their own

    def group(
        self, run: list[Comment], breaks: list[int], token: _Token, previous: _Token, next_column: int, closing: bool = False
    ) -> None:
        """Decide for each group of comment lines in `run` whether it is a foot (of no use) or the head of what follows.

        `breaks` has the line breaks before each comment and, last, before what follows at `next_column`.
        """
        indent = token.column if token.what == "-" else self.indent
        owner = previous if token.what == "," else token
        foot_line = token.line + 1 if token.line > 0 else -1
        if run[0].dash >= 0:
            foot_line += 1
        may_be_foot = breaks[0] <= 1
        first: Comment | None = None
        lines: list[str] = []
        for comment, gap in zip([*run, None], breaks, strict=True):
            blank = gap > 1
            if first is not None and (blank or (comment is None and closing)):
                below = may_be_foot and first.line == foot_line and owner.what != ":"
                if closing or below or (may_be_foot and first.column < indent):
                    self.foot(_joined(first, lines))
                    first = None
                else:
                    lines.append("")
                may_be_foot = False
            column = next_column if comment is None else comment.column
            if first is not None and column < indent and column != first.column:
                self.foot(_joined(first, lines))
                first = None
            if comment is None:
                break
            if first is None:
                first, lines = comment, []
            lines.append(comment.text)
        if first is not None:
            self.heads.append(_joined(first, lines))

    def foot(self, comment: Comment) -> None:
        comment.lost = "a comment below a value belongs to nothing"
        self.found.loose.append(comment)

    def settle_dash(self) -> None:
        """A head before the dash of an item that is itself a list belongs to that list."""
        for head in self.heads:
            if head.lost:
                head.lost = "it belongs to the list below it"
                self.found.loose.append(head)
            else:
                head.lost = "-"  # one dash has been seen
        self.heads = [head for head in self.heads if head.lost == "-"]

    def settle_heads(self) -> None:
        after = self.after
        for head in self.heads:
            if after is None or (head.dash >= 0 and after.empty == head.dash + 1):
                head.lost = "there is no value behind it"
                self.found.loose.append(head)
            else:
                head.lost = ""
                self.found.head.setdefault(self.gap, []).append(head)


def _joined(first: Comment, lines: list[str]) -> Comment:
    return Comment("\n".join(lines), first.start, first.line, first.column, first.dash)
