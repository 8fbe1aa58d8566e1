"""The parsed template. `str()` of a node is the text that Go's error messages show for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconcile.gotemplate.strconv import quote


@dataclass(slots=True)
class Node:
    """Any part of a template. `at` is the index of its first character, except for chains (their second field)."""

    at: int


@dataclass(slots=True)
class Text(Node):
    """What stands between actions."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class ListNode(Node):
    """Nodes that follow one another."""

    nodes: list[Node] = field(default_factory=list)

    def __str__(self) -> str:
        return "".join(map(str, self.nodes))


@dataclass(slots=True)
class Dot(Node):
    """The cursor."""

    def __str__(self) -> str:
        return "."


@dataclass(slots=True)
class Nil(Node):
    """The word nil."""

    def __str__(self) -> str:
        return "nil"


@dataclass(slots=True)
class Bool(Node):
    """true or false."""

    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


@dataclass(slots=True)
class Number(Node):
    """A number literal and what it can be read as; None where it does not fit."""

    text: str
    integer: int | None = None
    unsigned: int | None = None
    floating: float | None = None
    imaginary: complex | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class String(Node):
    """A string literal: as written and what it means."""

    quoted: str
    text: str

    def __str__(self) -> str:
        return self.quoted


@dataclass(slots=True)
class Identifier(Node):
    """The name of a function."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(slots=True)
class FieldNode(Node):
    """`.A.B`."""

    names: list[str]

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.names)


@dataclass(slots=True)
class Variable(Node):
    """`$x` with the fields asked of it."""

    names: list[str]

    def __str__(self) -> str:
        return ".".join(self.names)


@dataclass(slots=True)
class Chain(Node):
    """Fields of something other than the cursor or a variable: `(pipeline).A.B`."""

    node: Node
    names: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        base = f"({self.node})" if isinstance(self.node, Pipe) else str(self.node)
        return base + "".join(f".{name}" for name in self.names)


@dataclass(slots=True)
class Command(Node):
    """One stage of a pipeline: a term or a function with its arguments."""

    args: list[Node] = field(default_factory=list)

    def __str__(self) -> str:
        return " ".join(f"({arg})" if isinstance(arg, Pipe) else str(arg) for arg in self.args)


@dataclass(slots=True)
class Pipe(Node):
    """A pipeline, with the variables it sets."""

    declared: list[Variable] = field(default_factory=list)
    assigns: bool = False
    commands: list[Command] = field(default_factory=list)

    def __str__(self) -> str:
        body = " | ".join(map(str, self.commands))
        if not self.declared:
            return body
        return f"{', '.join(map(str, self.declared))} {'=' if self.assigns else ':='} {body}"


@dataclass(slots=True)
class Action(Node):
    """A pipeline whose value is printed."""

    pipe: Pipe

    def __str__(self) -> str:
        return f"{{{{{self.pipe}}}}}"


@dataclass(slots=True)
class Branch(Node):
    """if, with or range (`word`)."""

    word: str
    pipe: Pipe
    body: ListNode
    otherwise: ListNode | None

    def __str__(self) -> str:
        otherwise = "" if self.otherwise is None else f"{{{{else}}}}{self.otherwise}"
        return f"{{{{{self.word} {self.pipe}}}}}{self.body}{otherwise}{{{{end}}}}"


@dataclass(slots=True)
class Jump(Node):
    """break or continue (`word`)."""

    word: str

    def __str__(self) -> str:
        return f"{{{{{self.word}}}}}"


@dataclass(slots=True)
class Mark(Node):
    """end or else (`word`); never part of a finished tree."""

    word: str

    def __str__(self) -> str:
        return f"{{{{{self.word}}}}}"


@dataclass(slots=True)
class Include(Node):
    """`{{template "name" pipeline}}`."""

    name: str
    pipe: Pipe | None

    def __str__(self) -> str:
        return f"{{{{template {quote(self.name)}{'' if self.pipe is None else f' {self.pipe}'}}}}}"
