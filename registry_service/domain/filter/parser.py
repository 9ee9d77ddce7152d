"""Building the tree of a filter from its tokens."""

import re
import unicodedata
from collections.abc import Sequence

from registry_service.domain.filter.fields import Fields, field_of
from registry_service.domain.filter.lexer import Lexeme, Token, error, shown
from registry_service.domain.filter.nodes import (
    MAX_DEPTH,
    MAX_RESTRICTIONS,
    And,
    Comparator,
    Field,
    Kind,
    Node,
    Or,
    Pattern,
    Restriction,
    negated,
)
from registry_service.domain.filter.values import restriction

_NAME = Field(("name",), Kind.TEXT)


class Parser:
    """Recursive descent over the EBNF of AIP-160. MAX_DEPTH bounds the recursion."""

    def __init__(self, tokens: Sequence[Token], fields: Fields) -> None:
        self._tokens = tokens
        self._fields = fields
        self._next = 0
        self._restrictions = 0

    def filter(self) -> Node:
        """Return the root of the tree."""
        root = self._expression(depth=0)
        if self._peek().kind is not Lexeme.END:
            raise error("unbalanced )", self._peek().start)
        return root

    def _expression(self, *, depth: int) -> Node:
        # In AIP-160 a sequence (factors side by side) binds tighter than AND. Both mean AND, so that changes nothing.
        factors = [self._factor(depth=depth)]
        while self._peek().kind is not Lexeme.END and not self._peek().is_sign(")"):
            if not self._take_keyword("AND"):
                self._check_boundary()
            factors.append(self._factor(depth=depth))
        return And(tuple(factors)) if len(factors) > 1 else factors[0]

    def _factor(self, *, depth: int) -> Node:
        terms = [self._term(depth=depth)]
        while self._take_keyword("OR"):
            terms.append(self._term(depth=depth))
        return Or(tuple(terms)) if len(terms) > 1 else terms[0]

    def _term(self, *, depth: int) -> Node:
        is_negated = False
        while self._peek().is_keyword("NOT") or self._peek().is_sign("-"):
            is_minus = self._take().is_sign("-")
            if is_minus and (self._peek().is_spaced or not self._peek().begins_term()):
                raise error("missing restriction after -", self._tokens[self._next - 1].start)
            is_negated = not is_negated
        simple = self._simple(depth=depth)
        return negated(simple) if is_negated else simple

    def _simple(self, *, depth: int) -> Node:
        token = self._peek()
        if token.is_sign("("):
            return self._composite(depth=depth)
        if token.kind is Lexeme.END:
            raise error("the filter ends where a restriction is expected", token.start)
        if token.kind not in {Lexeme.TEXT, Lexeme.QUOTED} or token.is_keyword("AND", "OR"):
            raise error(f"expected a restriction instead of {shown(token.text)}", token.start)
        return self._restriction()

    def _composite(self, *, depth: int) -> Node:
        opening = self._take()
        if depth == MAX_DEPTH:
            raise error(f"parentheses are nested deeper than {MAX_DEPTH}", opening.start)
        inner = self._expression(depth=depth + 1)
        if self._peek().kind is Lexeme.END:
            raise error("missing ) for this (", opening.start)
        self._take()
        return inner

    def _restriction(self) -> Node:
        path = self._path()
        self._restrictions += 1
        if self._restrictions > MAX_RESTRICTIONS:
            raise error(f"the filter has more than {MAX_RESTRICTIONS} restrictions", path[0].start)
        if self._peek().kind is Lexeme.COMPARATOR:
            operator = self._take()
            field = field_of(path, self._fields, self._peek())
            return restriction(field, operator, self._argument(operator), self._fields)
        self._refuse_mistaken(path)
        searched = _joined([token.pattern for token in path])
        return Restriction(_NAME, Comparator.CONTAINS, searched)

    def _refuse_mistaken(self, path: Sequence[Token]) -> None:
        """Raise `InvalidFilterError` for a bare word, or words with dots, that is probably a mistake."""
        if len(path) == 1 and path[0].is_keyword("and", "or", "not"):
            keyword = path[0].text
            raise error(
                f'write {keyword.upper()} in upper case, or "{keyword}" in quotes to search for it', path[0].start
            )
        for token in path:
            _refuse_operator(token)
        following = self._peek()
        if path[0].kind is Lexeme.TEXT and any(known[0] == path[0].text for known in self._fields):
            name = shown(".".join(token.text for token in path))
            if following.begins_term() and not following.is_keyword("AND", "OR"):
                raise error(f"{name}: unknown operator {shown(following.text)}; {_OPERATORS}", following.start)
            raise error(
                f"missing operator after the field {name}; {_OPERATORS}; quote the word to search for it",
                following.start,
            )

    def _path(self) -> list[Token]:
        path = [self._take()]
        while self._peek().is_sign(".") and not self._peek().is_spaced:
            dot = self._take()
            name = self._peek()
            if name.is_spaced or name.kind not in {Lexeme.TEXT, Lexeme.QUOTED}:
                raise error("missing name after the dot", dot.start)
            path.append(self._take())
        self._refuse_call(path[0])
        return path

    def _argument(self, operator: Token) -> Token:
        argument = self._peek()
        if argument.is_sign("("):
            raise error(
                f"expected one value after {operator.text}; write a = 1 OR a = 2 for several",
                argument.start,
            )
        if argument.kind not in {Lexeme.TEXT, Lexeme.QUOTED}:
            raise error(f"missing value after {operator.text}", argument.start)
        if argument.is_keyword("AND", "OR", "NOT"):
            raise error(
                f"expected a value after {operator.text}, not a keyword; quote it to use it as a value", argument.start
            )
        if argument.kind is Lexeme.TEXT and (_is_operator_sign(argument.text[0]) or _CHAIN.search(argument.text)):
            raise error(
                f"unknown operator in {shown(argument.text)}; quote it to use it as a value",
                argument.start,
            )
        self._take()
        self._refuse_call(argument)
        return argument

    def _refuse_call(self, name: Token) -> None:
        if self._peek().is_sign("(") and not self._peek().is_spaced:
            raise error(f"functions are not supported: {shown(name.text)}()", name.start)

    def _check_boundary(self) -> None:
        token = self._peek()
        if not token.begins_term():
            raise error(f"unexpected {token.text}", token.start)
        follows_parenthesis = self._tokens[self._next - 1].is_sign(")")
        if not token.is_spaced and not follows_parenthesis and not token.is_sign("("):
            raise error(f"expected a space or a keyword before {shown(token.text)}", token.start)

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _take_keyword(self, keyword: str) -> bool:
        is_there = self._peek().is_keyword(keyword)
        self._next += is_there
        return is_there


_OPERATORS = "the operators are =, !=, <, <=, >, >= and :"
_FOREIGN_OPERATORS = re.compile(
    "i?like|rlike|glob|regexp|matches|contains|startswith|endswith|between|in|is|isnull|notnull"
    "|eq|neq?|gte?|ge|lte?|le|xor",
    re.IGNORECASE,
)
# In lower case, these words are common in names.
_FOREIGN_KEYWORDS = re.compile(
    "NULL|EXISTS|HAS|ANY|ALL|SOME|SIMILAR|MATCH|ESCAPE|WHERE|ORDER|BY|GROUP|HAVING|LIMIT|OFFSET|ASC|DESC"
)
_CHAIN = re.compile(r"&&|\|\|")
_ESCAPED = re.compile(r"\\.")


def _is_operator_sign(character: str) -> bool:
    """Tell whether a character is a mathematical sign, such as ~, | or ≥. A + may be part of a name."""
    return unicodedata.category(character) == "Sm" and character != "+"


def _refuse_operator(token: Token) -> None:
    """Raise `InvalidFilterError` for a bare word that is, or contains, an operator of another language."""
    if token.kind is not Lexeme.TEXT:
        return
    text = _ESCAPED.sub("x", token.text)
    if (
        _FOREIGN_OPERATORS.fullmatch(text)
        or _FOREIGN_KEYWORDS.fullmatch(text)
        or any(map(_is_operator_sign, text))
        or _CHAIN.search(text)
        or not any(character.isalnum() or character in "*_" for character in text)
    ):
        raise error(f"unknown operator {shown(token.text)}; {_OPERATORS}; quote it to search for it", token.start)


def _joined(patterns: Sequence[Pattern]) -> Pattern:
    """Join the names of a path with dots, as a bare word may contain dots (`v1.5`)."""
    parts = list(patterns[0].parts)
    for pattern in patterns[1:]:
        parts[-1] += "." + pattern.parts[0]
        parts += pattern.parts[1:]
    return Pattern(tuple(parts))
