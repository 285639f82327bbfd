"""Expressions of reward programs, recorded as torch operations; their words are in `_words`.

One walk over the syntax tree settles names, shapes and the arithmetic of numbers. No program is run
as Python, and no attribute of an object is ever looked up by a name that a program chose.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _words as words
from ._words import Function, dotted, fail, need, refuse

NUMBER, MAX_STEPS, MAX_WIDTH = -1, 2000, 64
_DEVICE = r"'(cuda|cpu)(:\d)?'"
_DEVICE = (
    rf"{_DEVICE}|torch\.device\({_DEVICE}( if torch\.cuda\.is_available\(\) else {_DEVICE})?\)"
)
_OF = r"(\w+)\.(device|dtype|shape\[0\]|size\(0\))|len\((\w+)\)"


class Value(NamedTuple):
    """What an expression stands for: a number, or a tensor known by its slot and its shape."""

    slot: int
    width: int = NUMBER  # 0 for [N], k for [N, k]
    kind: str = "float"  # or "bool", or "field": float here, but outside it may be bool
    number: float = 0.0

    def __str__(self) -> str:
        return "a number" if self.width < 0 else f"[N, {self.width}]" if self.width else "[N]"


# What a name stands for: a value, a dict of components, or what is only passed on (see `setting`)
Content = Value | dict[str, Value] | str


class Expressions:
    """Records expressions of `fields` (name -> shape per robot) as operations on numbered slots.

    Equal operations share a slot. Numbers become 0-dim tensors, the faster kind with torch.
    """

    best: Callable[[ast.Call], Value]  # records the values of max(x, dim=-1)

    def __init__(self, fields: Mapping[str, tuple[int, ...]]) -> None:
        self.fields, self.steps = fields, 0
        self.scope: dict[str, Content] = {}
        self.helpers: dict[str, ast.FunctionDef] = {}
        self.slots: list[Any] = []  # tensors, and arguments that torch takes as they are
        self.loads: dict[str, int] = {}  # field -> slot
        self.asked: list[str] = []  # the parameters of the program
        self.made: dict[int, tuple[Function, tuple[int, ...]]] = {}  # slot -> how
        self._known: dict[object, int] = {}

    def _slot(self, key: object, content: object = None) -> int:
        if key not in self._known:
            self._known[key] = len(self.slots)
            self.slots.append(content)
        return self._known[key]

    def _operand(self, x: object) -> int:
        if not isinstance(x, Value):  # a dimension, a slice
            return self._slot(repr(x), x)
        number = torch.tensor(x.number, dtype=torch.float32)
        return self._slot(("number", x.number), number) if x.width == NUMBER else x.slot

    def emit(self, function: Function, *operands: object) -> int:
        """Record function(*operands), Values or raw arguments; return its slot."""
        made = (function, tuple(map(self._operand, operands)))
        self.made.setdefault(self._slot(made), made)
        return self._known[made]

    def step(self, node: ast.AST | None) -> None:
        """Count an operation."""
        self.steps += 1
        need(self.steps <= MAX_STEPS, node, f"more than {MAX_STEPS} operations, loops unrolled.")

    def value(self, node: ast.AST) -> Value:
        """Record an expression."""
        self.step(node)
        x: Value = getattr(self, f"expr_{type(node).__name__}", refuse)(node)
        return x

    def floats(self, *nodes: ast.AST) -> list[Value]:
        """Record expressions, bools as 0.0 and 1.0."""
        return [self.as_float(x) for x in [self.value(node) for node in nodes]]

    def as_float(self, x: Value) -> Value:
        """Record a bool as 0.0 or 1.0."""
        slot = self.emit(Tensor.float, x) if x.kind == "bool" else x.slot
        return x._replace(slot=slot, kind="float")

    def condition(self, node: ast.AST, strict: bool = False) -> Value:
        """Record an expression as bool; `strict`: a computed float is no condition."""
        return self.truth(node, self.value(node), strict)

    def truth(self, node: ast.AST, x: Value, strict: bool = False) -> Value:
        """Record a value as bool."""
        # & of floats is always a mistake of precedence: a < 1 & b > 2
        good = x.width != NUMBER and not (strict and x.kind == "float")
        need(good, node, "this is no condition: compare, in parentheses, (a < 1) & (b > 2).")
        slot = x.slot if x.kind == "bool" else self.emit(torch.ne, x, Value(-1))
        return x._replace(slot=slot, kind="bool")

    def apply(
        self, node: ast.AST | None, function: Function, *values: Value, kind: str = "float"
    ) -> Value:
        """Record an elementwise function; of numbers alone, compute it now."""
        widths = sorted({x.width for x in values} - {NUMBER})
        if not widths:
            numbers = [torch.tensor(x.number, dtype=torch.float64) for x in values]
            return self._number(node, float(function(*numbers)))
        shapes = f"shapes {' and '.join(map(str, values))} do not fit"
        fit = len(widths) == 1 or (len(widths) == 2 and widths[0] == 1)
        need(fit, node, f"{shapes}: x[:, 0] or norm(x) is one number per robot.")
        operands: Sequence[object] = values
        if function is torch.pow:  # a Python exponent takes torch's fast ways, as the one to square
            operands = [x.number if x.width == NUMBER else x for x in values]
        return Value(self.emit(function, *operands), widths[-1], kind)

    def _number(self, node: ast.AST | None, x: float) -> Value:
        need(abs(x) < 3.4028235e38, node, f"the number {x:g} is not finite in float32.")
        return Value(-1, number=x)

    def expr_Constant(self, node: ast.Constant) -> Value:
        x = node.value
        if not isinstance(x, int | float):
            fail(node, f"{type(x).__name__} is not a value: use numbers.")
        return self._number(node, float(x) if abs(x) < 1e300 else math.inf)

    def expr_Name(self, node: ast.Name) -> Value:
        x, known = self.scope.get(node.id), f"the fields are {', '.join(self.fields)}"
        need(not isinstance(x, dict), node, f"{node.id!r} is a dict of components, not a value.")
        need(not isinstance(x, str), node, f"{node.id!r} can be passed on, but is not a value.")
        if isinstance(x, Value):
            return x
        need(node.id in self.fields, node, f"unknown field {node.id!r}: {known}.")
        self.loads[node.id] = self._slot(("field", node.id))
        width = sum(self.fields[node.id])
        return Value(self.loads[node.id], width, "float" if width else "field")

    def expr_Attribute(self, node: ast.Attribute) -> Value:
        if node.attr == "values" and isinstance(node.value, ast.Call):
            return self.best(node.value)
        name = dotted(node)
        need(name in words.CONSTANTS, node, f"attribute '.{node.attr}' is not allowed.")
        return self._number(node, words.CONSTANTS[name])

    def _operate(self, node: ast.AST, op: ast.AST, *parts: ast.AST) -> Value:
        if type(op) in words.ARITHMETIC:
            return self.apply(node, words.ARITHMETIC[type(op)], *self.floats(*parts))
        if type(op) in words.COMPARISONS:
            compare = words.COMPARISONS[type(op)]
            return self.apply(node, compare, *self.floats(*parts), kind="bool")
        if type(op) not in words.SYMBOLS:
            refuse(op, node)
        values = [self.condition(part, strict=True) for part in parts]
        return self.apply(node, words.LOGICAL[words.SYMBOLS[type(op)]], *values, kind="bool")

    def expr_UnaryOp(self, node: ast.UnaryOp) -> Value:
        return self._operate(node, node.op, node.operand)

    def expr_BinOp(self, node: ast.BinOp) -> Value:
        return self._operate(node, node.op, node.left, node.right)

    def expr_Compare(self, node: ast.Compare) -> Value:
        sides = [node.left, *node.comparators]
        result, *more = map(self._operate, [node] * len(node.ops), node.ops, sides, sides[1:])
        for x in more:  # 0 < d < 1
            result = self.apply(node, torch.logical_and, result, x, kind="bool")
        return result

    def expr_Subscript(self, node: ast.Subscript) -> Value:
        if isinstance(node.value, ast.Call) and ast.unparse(node.slice) == "0":
            return self.best(node.value)
        parts = self.scope.get(dotted(node.value))
        if isinstance(parts, dict):
            key = getattr(node.slice, "value", None)
            if not isinstance(key, str) or key not in parts:
                fail(node, f"the components are {', '.join(parts) or 'none'} here.")
            return parts[key]
        x = self.value(node.value)
        if x.width == 0 and ast.unparse(node.slice) in ("(:, None)", "(..., None)"):
            return Value(self.emit(torch.unsqueeze, x, 1), 1, x.kind)
        columns = self.columns(node, x)
        if isinstance(columns, slice):
            key = (slice(None), columns)
            return Value(self.emit(operator.getitem, x, key), columns.stop - columns.start, x.kind)
        if numbers := self._constants(x):
            return Value(-1, number=numbers[columns])
        return Value(self.emit(torch.select, x, 1, columns), 0, x.kind)

    def columns(self, node: ast.Subscript, x: Value) -> int | slice:
        """Which columns of x an index [:, i], [..., i] or [:, i:j] means; of constants also [i]."""
        several = node.slice.elts if isinstance(node.slice, ast.Tuple | ast.List) else []
        *robots, part = several or [node.slice]
        every = [ast.unparse(robot) for robot in robots] in ([":"], ["..."])
        last = x.width > 0 and (every or (self._constants(x) and not robots))
        need(last, node, f"{x} has no such index: of x [N, k] there are x[:, 0] and x[:, :2].")
        if not isinstance(part, ast.Slice):
            i = self.integer(part)
            need(-x.width <= i < x.width, node, f"index {i} is outside the {x.width} columns.")
            return i % x.width
        ends = (part.lower, part.upper, part.step)
        start, stop, step = [None if k is None else self.integer(k) for k in ends]
        columns = range(x.width)[start:stop]
        need(step in (None, 1) and columns, node, "a slice needs step 1 and a column in reach.")
        return slice(columns.start, columns.stop)

    def real(self, node: ast.AST) -> float:
        """Record an expression that must be a number."""
        x = self.value(node)
        need(x.width == NUMBER, node, f"a number is needed here, not {x}.")
        return x.number

    def integer(self, node: ast.AST) -> int:
        """Record an expression that must be a whole number."""
        x = self.real(node)
        need(x == int(x), node, "whole number needed here.")
        return int(x)

    def vector(self, node: ast.AST, numbers: Sequence[float]) -> Value:
        """Record a vector that is the same for all robots."""
        need(0 < len(numbers) <= MAX_WIDTH, node, f"a vector has 1 to {MAX_WIDTH} numbers.")
        return Value(self.emit(words.vector, self.any_field(self.asked), *numbers), len(numbers))

    def _constants(self, x: Value) -> list[float]:
        """The numbers of a vector that is the same for all robots."""
        function, operands = self.made.get(x.slot, (None, ()))
        numbers = [self.slots[i] for i in operands[1:]] if function is words.vector else []
        return [k for k in numbers if isinstance(k, float)]

    def any_field(self, asked: Sequence[str] = ()) -> Value:
        """A field, to know how many robots there are."""
        need(self.fields, None, "a program needs a field, to know how many robots there are.")
        return self.expr_Name(ast.Name(next(iter(self.loads or asked or self.fields))))

    def setting(self, node: ast.AST) -> str:
        """What a program passes on without effect on a value: "device", "robots" or a type.

        Types are "float", "bool" and "int". Empty if the expression is none of these.
        """
        text = ast.unparse(node)
        known, (root, _, last) = self.scope.get(text), text.rpartition(".")
        if isinstance(known, str):
            return known
        if text not in self.fields and root in words.MODULES | {""} and last in words.DTYPES:
            return words.DTYPES[last]
        of = re.fullmatch(_OF, text)
        name = of and (of[1] or of[3])
        x = name and (self.scope.get(name) or (name in self.fields and Value(-1)))
        if of and isinstance(x, Value):
            types = {"device": "device", "dtype": "bool" if x.kind == "bool" else "float"}
            return types.get(of[2], "robots")
        return "device" if re.fullmatch(_DEVICE, text) else ""

    def elements(self, node: ast.AST) -> Sequence[ast.expr]:
        """The parts of (a, b), [a, b], range(3) or of the values of components."""
        if isinstance(node, ast.Tuple | ast.List):
            return node.elts
        if not isinstance(node, ast.Call) or node.keywords:
            return []
        name, args = ast.unparse(node.func), node.args
        parts = self.scope.get(name.removesuffix(".values"))
        if name.endswith(".values") and isinstance(parts, dict) and not args:
            base = ast.Name(name.removesuffix(".values"))
            return [ast.copy_location(ast.Subscript(base, ast.Constant(k)), node) for k in parts]
        if name in ("list", "tuple") and len(args) == 1:
            return self.elements(args[0])
        if name == "range" and 0 < len(args) < 4:
            ends = [self.integer(arg) for arg in args]
            need(all(abs(k) < 100 for k in ends) and ends[2:] != [0], node, "range goes too far.")
            return [ast.copy_location(ast.Constant(k), node) for k in range(*ends)]
        return []
