"""From text to nodes: the grammar of Go's `text/template`, with its error texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from reconcile.gotemplate.failures import ParseError
from reconcile.gotemplate.lexer import Token, lex
from reconcile.gotemplate.nodes import (
    Action,
    Bool,
    Branch,
    Chain,
    Command,
    Dot,
    FieldNode,
    Identifier,
    Include,
    Jump,
    ListNode,
    Mark,
    Nil,
    Node,
    Number,
    Pipe,
    String,
    Text,
    Variable,
)
from reconcile.gotemplate.numbers import NumberError, parse_number
from reconcile.gotemplate.strconv import quote, unquote

_MAX_NESTING: Final = 60
_OPERANDS: Final = frozenset({
    "bool", "char constant", "complex", "dot", "field", "identifier", "number", "nil", "raw string", "string", "variable",
    "left paren",
})  # fmt: skip
_VALUES: Final = (Bool, Dot, Nil, Number, String)


@dataclass(slots=True)
class Tree:
    """One template: its name and its nodes."""

    name: str
    root: ListNode


def parse(name: str, text: str, functions: Iterable[str]) -> dict[str, Tree]:
    """The template called `name` and all those that its text defines, by name.

    Raises:
        ParseError: in Go's words.
    """
    return _Parser(name, text, frozenset(functions)).run()


def _is_empty(node: Node) -> bool:
    if isinstance(node, ListNode):
        return all(map(_is_empty, node.nodes))
    return isinstance(node, Text) and not node.text.strip()


class _Parser:
    def __init__(self, name: str, text: str, functions: frozenset[str]) -> None:
        self.name = name
        self.tokens = lex(text, functions)
        self.next_token = 0
        # Go reports the line of the token that it read last and did not give back in a certain order; these mirror its buffer.
        self.buffer = [self.tokens[0], self.tokens[0], self.tokens[0]]
        self.buffer[0] = Token("eof", 0, "", 0)
        self.peeked = 0
        self.functions = functions
        self.trees: dict[str, Tree] = {}
        self.variables = ["$"]
        self.ranges = 0
        self.nesting = 0
        self.action_line = 0

    # Tokens.

    def _read(self) -> Token:
        token = self.tokens[min(self.next_token, len(self.tokens) - 1)]
        self.next_token += 1
        return token

    def _next(self) -> Token:
        if self.peeked > 0:
            self.peeked -= 1
        else:
            self.buffer[0] = self._read()
        return self.buffer[self.peeked]

    def _peek(self) -> Token:
        if self.peeked > 0:
            return self.buffer[self.peeked - 1]
        self.peeked = 1
        self.buffer[0] = self._read()
        return self.buffer[0]

    def _back(self, *earlier: Token) -> None:
        """Give back the last token and, before it, the `earlier` ones (the latest of them first)."""
        for place, token in enumerate(earlier, 1):
            self.buffer[place] = token
        self.peeked = self.peeked + 1 if not earlier else len(earlier) + 1

    def _next_word(self) -> Token:
        while (token := self._next()).kind == "space":
            pass
        return token

    def _peek_word(self) -> Token:
        token = self._next_word()
        self._back()
        return token

    # Errors.

    def _error(self, text: str) -> ParseError:
        return ParseError(f"template: {self.name}:{self.buffer[0].line}: {text}")

    def _unexpected(self, token: Token, context: str) -> ParseError:
        if token.kind != "error":
            return self._error(f"unexpected {token} in {context}")
        extra = ""
        if self.action_line not in {0, token.line}:
            extra = f" in action started at {self.name}:{self.action_line}"
            if token.text.endswith(" action"):
                extra = extra.removeprefix(" in action")
        return self._error(f"{token}{extra}")

    def _expect(self, context: str, *kinds: str) -> Token:
        token = self._next_word()
        if token.kind not in kinds:
            raise self._unexpected(token, context)
        return token

    # Templates.

    def run(self) -> dict[str, Tree]:
        root = ListNode(self._peek().at)
        while self._peek().kind != "eof":
            if self._peek().kind == "left delim":
                delimiter = self._next()
                if self._next_word().kind == "define":
                    self._definition()
                    continue
                self._back(delimiter)
            node = self._text_or_action()
            if isinstance(node, Mark):
                raise self._error(f"unexpected {node}")
            root.nodes.append(node)
        self._add(self.name, root)
        return self.trees

    def _add(self, name: str, root: ListNode) -> None:
        known = self.trees.get(name)
        if known is None or _is_empty(known.root):
            self.trees[name] = Tree(name, root)
        elif not _is_empty(root):
            raise self._error(f"template: multiple definition of template {quote(name)}")

    def _definition(self) -> None:
        context = "define clause"
        name = self._unquote(self._expect(context, "string", "raw string"))
        self._expect(context, "right delim")
        self._add(name, self._inner(context))

    def _inner(self, context: str) -> ListNode:
        """The body of a define or block: a world of its own."""
        outer = self.variables, self.ranges, self.action_line
        self.variables, self.ranges, self.action_line = ["$"], 0, 0
        root, end = self._items()
        if end.word != "end":
            raise self._error(f"unexpected {end} in {context}")
        self.variables, self.ranges, self.action_line = outer
        return root

    def _unquote(self, token: Token) -> str:
        try:
            return unquote(token.text)
        except ValueError as error:
            raise self._error(str(error)) from None

    def _items(self) -> tuple[ListNode, Mark]:
        items = ListNode(self._peek_word().at)
        while self._peek_word().kind != "eof":
            node = self._text_or_action()
            if isinstance(node, Mark):
                return items, node
            items.nodes.append(node)
        raise self._error("unexpected EOF")

    def _text_or_action(self) -> Node:
        token = self._next_word()
        if token.kind == "text":
            return Text(token.at, token.text)
        if token.kind != "left delim":
            raise self._unexpected(token, "input")
        self.action_line = token.line
        node = self._action()
        self.action_line = 0
        return node

    def _action(self) -> Node:
        token = self._next_word()
        match token.kind:
            case "block":
                return self._block()
            case "break" | "continue" as word:
                return self._jump(token, word)
            case "else":
                return self._else()
            case "end":
                return Mark(self._expect("end", "right delim").at, "end")
            case "if" | "range" | "with" as word:
                return self._control(word)
            case "template":
                return self._include()
        self._back()
        return Action(self._peek().at, self._pipeline("command", "right delim"))

    def _jump(self, token: Token, word: str) -> Jump:
        after = self._next_word()
        if after.kind != "right delim":
            raise self._unexpected(after, f"{{{{{word}}}}}")
        if self.ranges == 0:
            raise self._error(f"{{{{{word}}}}} outside {{{{range}}}}")
        return Jump(token.at, word)

    def _else(self) -> Mark:
        peeked = self._peek_word()
        if peeked.kind in {"if", "with"}:
            return Mark(peeked.at, "else")
        return Mark(self._expect("else", "right delim").at, "else")

    def _block(self) -> Include:
        context = "block clause"
        token = self._next_word()
        name = self._template_name(token, context)
        pipe = self._pipeline(context, "right delim")
        self._nest()
        self._add(name, self._inner(context))
        self.nesting -= 1
        return Include(token.at, name, pipe)

    def _include(self) -> Include:
        context = "template clause"
        token = self._next_word()
        name = self._template_name(token, context)
        if self._next_word().kind == "right delim":
            return Include(token.at, name, None)
        self._back()
        return Include(token.at, name, self._pipeline(context, "right delim"))

    def _template_name(self, token: Token, context: str) -> str:
        if token.kind not in {"string", "raw string"}:
            raise self._unexpected(token, context)
        return self._unquote(token)

    def _nest(self) -> None:
        self.nesting += 1
        if self.nesting > _MAX_NESTING:
            raise self._error("max expression depth exceeded")

    def _control(self, word: str) -> Branch:
        declared = len(self.variables)
        pipe = self._pipeline(word, "right delim")
        self._nest()
        self.ranges += word == "range"
        body, end = self._items()
        self.ranges -= word == "range"
        otherwise: ListNode | None = None
        if end.word == "else":
            if word in {"if", "with"} and self._peek().kind == word:
                self._next()
                otherwise = ListNode(end.at, [self._control(word)])
            else:
                otherwise, end = self._items()
                if end.word != "end":
                    raise self._error(f"expected end; found {end}")
        self.nesting -= 1
        del self.variables[declared:]
        return Branch(pipe.at, word, pipe, body, otherwise)

    # Pipelines.

    def _pipeline(self, context: str, end: str) -> Pipe:
        pipe = Pipe(self._peek_word().at)
        while self._declaration(pipe, context):
            pass
        while True:
            token = self._next_word()
            if token.kind == end:
                break
            if token.kind not in _OPERANDS:
                raise self._unexpected(token, context)
            self._back()
            pipe.commands.append(self._command())
        if not pipe.commands:
            raise self._error(f"missing value for {context}")
        for stage, command in enumerate(pipe.commands[1:], 2):
            if isinstance(command.args[0], _VALUES):
                raise self._error(f"non executable command in pipeline stage {stage}")
        return pipe

    def _declaration(self, pipe: Pipe, context: str) -> bool:
        """One variable in front of `:=` or `=`; True when another one may follow."""
        variable = self._peek_word()
        if variable.kind != "variable":
            return False
        self._next()
        after = self._peek()
        following = self._peek_word()
        if following.kind in {"assign", "declare"} or (following.kind == "char" and following.text == ","):
            self._next_word()
            pipe.assigns = following.kind == "assign"
            pipe.declared.append(Variable(variable.at, variable.text.split(".")))
            self.variables.append(variable.text)
            if following.kind != "char":
                return False
            if context == "range" and len(pipe.declared) < 2:
                if self._peek_word().kind in {"variable", "right delim", "right paren"}:
                    return True
                raise self._error("range can only initialize variables")
            raise self._error(f"too many declarations in {context}")
        if after.kind == "space":
            self._back(after, variable)
        else:
            self._back(variable)
        return False

    def _command(self) -> Command:
        command = Command(self._peek_word().at)
        while True:
            self._peek_word()
            operand = self._operand()
            if operand is not None:
                command.args.append(operand)
            token = self._next()
            if token.kind == "space":
                continue
            if token.kind in {"right delim", "right paren"}:
                self._back()
            elif token.kind != "pipe":
                raise self._unexpected(token, "operand")
            break
        if not command.args:
            raise self._error("empty command")
        return command

    def _operand(self) -> Node | None:
        node = self._term()
        if node is None or self._peek().kind != "field":
            return node
        at = self._peek().at
        names = []
        while self._peek().kind == "field":
            names.append(self._next().text[1:])
        if isinstance(node, FieldNode):
            return FieldNode(at, node.names + names)
        if isinstance(node, Variable):
            return Variable(at, node.names + names)
        if isinstance(node, _VALUES):
            raise self._error(f"unexpected . after term {quote(str(node))}")
        return Chain(at, node, names)

    def _term(self) -> Node | None:
        token = self._next_word()
        match token.kind:
            case "identifier":
                if token.text not in self.functions:
                    raise self._error(f"function {quote(token.text)} not defined")
                return Identifier(token.at, token.text)
            case "dot":
                return Dot(token.at)
            case "nil":
                return Nil(token.at)
            case "variable":
                if token.text not in self.variables:
                    raise self._error(f"undefined variable {quote(token.text)}")
                return Variable(token.at, [token.text])
            case "field":
                return FieldNode(token.at, [token.text[1:]])
            case "bool":
                return Bool(token.at, token.text == "true")
            case "char constant" | "complex" | "number":
                try:
                    return parse_number(token)
                except NumberError as error:
                    raise self._error(str(error)) from None
            case "left paren":
                self._nest()
                pipe = self._pipeline("parenthesized pipeline", "right paren")
                self.nesting -= 1
                return pipe
            case "string" | "raw string":
                return String(token.at, token.text, self._unquote(token))
        self._back()
        return None
