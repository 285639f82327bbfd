"""Expressions of reward programs, recorded as torch operations.

One walk over the syntax tree settles names, shapes and the arithmetic of numbers. No program is run
as Python, and no attribute of an object is ever looked up by a name that a program chose.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._source import dotted, fail, need, refuse

Function = Callable[..., Tensor]
NUMBER, MAX_STEPS = -1, 2000
MODULES = {"torch", "np", "numpy", "math", "F"}
_CONSTANTS = {f"{m}.{c}": getattr(math, c) for m in MODULES - {"F"} for c in ("pi", "e")}
_OPERATORS: dict[type[ast.AST], Function] = {ast.Add: operator.add, ast.Sub: operator.sub}
_OPERATORS |= {ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Mod: operator.mod}
_OPERATORS |= {ast.Pow: torch.pow, ast.USub: operator.neg, ast.UAdd: operator.pos}
_OPERATORS |= {ast.Lt: torch.lt, ast.LtE: torch.le, ast.Gt: torch.gt, ast.GtE: torch.ge}
_OPERATORS |= {ast.Eq: torch.eq, ast.NotEq: torch.ne, ast.Invert: torch.logical_not}
_OPERATORS |= {ast.BitAnd: torch.logical_and, ast.BitOr: torch.logical_or}
LOGICAL = {torch.logical_and, torch.logical_or, torch.logical_not}  # of conditions
_CONDITIONS = LOGICAL | {torch.lt, torch.le, torch.gt, torch.ge, torch.eq, torch.ne}


class Value(NamedTuple):
    """What an expression stands for: a number, or a tensor known by its slot and its shape."""

    slot: int
    width: int = NUMBER  # 0 for [N], k for [N, k]
    kind: str = "float"  # or "bool", or "field": float here, but outside it may be bool
    number: float = 0.0

    def __str__(self) -> str:
        return "a number" if self.width < 0 else f"[N, {self.width}]" if self.width else "[N]"


# What a name stands for: a value, a dict of components, or a device or type that is passed on
Content = Value | dict[str, Value] | str


class Expressions:
    """Records expressions of `fields` (name -> shape per robot) as operations on numbered slots.

    Equal operations share a slot. Numbers become 0-dim tensors, the faster kind with torch.
    """

    def __init__(self, fields: Mapping[str, tuple[int, ...]]) -> None:
        self.fields, self.steps = fields, 0
        self.scope: dict[str, Content] = {}
        self.helpers: dict[str, ast.FunctionDef] = {}
        self.slots: list[Any] = []  # tensors, and arguments that torch takes as they are
        self.loads: dict[str, int] = {}  # field -> slot
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

    def values(self, kind: str, *nodes: ast.AST) -> list[Value]:
        """Record expressions of one kind, see `cast`."""
        return [self.cast(node, self.value(node), kind) for node in nodes]

    def cast(self, node: ast.AST, x: Value, kind: str) -> Value:
        """Record a value as "float" or "bool"; a "condition" is no bool made of computed floats."""
        if kind == "float":
            slot = self.emit(Tensor.float, x) if x.kind == "bool" else x.slot
            return x._replace(slot=slot, kind=kind)
        # & of computed floats is always a mistake of precedence: a < 1 & b > 2
        good = x.width != NUMBER and (kind, x.kind) != ("condition", "float")
        need(good, node, "this is no condition: compare, in parentheses, (a < 1) & (b > 2).")
        slot = x.slot if x.kind == "bool" else self.emit(torch.ne, x, Value(-1))
        return x._replace(slot=slot, kind="bool")

    def apply(self, node: ast.AST | None, function: Function, *values: Value) -> Value:
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
        kind = "bool" if function in _CONDITIONS else "float"
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
        need(not isinstance(x, dict | str), node, f"{node.id!r} can be passed on, but is no value.")
        if isinstance(x, Value):
            return x
        need(node.id in self.fields, node, f"unknown field {node.id!r}: {known}.")
        self.loads[node.id] = self._slot(("field", node.id))
        width = sum(self.fields[node.id])
        return Value(self.loads[node.id], width, "float" if width else "field")

    def expr_Attribute(self, node: ast.Attribute) -> Value:
        name = dotted(node)
        need(name in _CONSTANTS, node, f"attribute '.{node.attr}' is not allowed: use functions.")
        return self._number(node, _CONSTANTS[name])

    def _operate(self, node: ast.AST, op: ast.AST, *parts: ast.AST) -> Value:
        function = _OPERATORS.get(type(op)) or refuse(op, node)
        kind = "condition" if function in LOGICAL else "float"
        return self.apply(node, function, *self.values(kind, *parts))

    def expr_UnaryOp(self, node: ast.UnaryOp) -> Value:
        return self._operate(node, node.op, node.operand)

    def expr_BinOp(self, node: ast.BinOp) -> Value:
        return self._operate(node, node.op, node.left, node.right)

    def expr_Compare(self, node: ast.Compare) -> Value:
        sides = [node.left, *node.comparators]
        result, *more = map(self._operate, [node] * len(node.ops), node.ops, sides, sides[1:])
        for x in more:  # 0 < d < 1
            result = self.apply(node, torch.logical_and, result, x)
        return result

    def expr_Subscript(self, node: ast.Subscript) -> Value:
        parts = self.scope.get(dotted(node.value))
        if isinstance(parts, dict):
            key = getattr(node.slice, "value", None)
            need(key in parts, node, f"the components are {', '.join(parts) or 'none'} here.")
            return parts[str(key)]
        x = self.value(node.value)
        *robots, part = getattr(node.slice, "elts", None) or [node.slice]
        last = x.width > 0 and len(robots) == 1 and ast.unparse(robots[0]) in (":", "...")
        need(last, node, f"{x} has no such index: of x [N, k] there are x[:, 0] and x[:, :2].")
        if not isinstance(part, ast.Slice):
            i = self.integer(part)
            need(-x.width <= i < x.width, node, f"index {i} is outside the {x.width} columns.")
            return Value(self.emit(torch.select, x, 1, i % x.width), 0, x.kind)
        ends = (part.lower, part.upper, part.step)
        start, stop, step = [None if k is None else self.integer(k) for k in ends]
        columns = range(x.width)[start:stop]
        need(step in (None, 1) and columns, node, "a slice needs step 1 and a column in reach.")
        key = (slice(None), slice(columns.start, columns.stop))
        return Value(self.emit(operator.getitem, x, key), len(columns), x.kind)

    def integer(self, node: ast.AST) -> int:
        """Record an expression that must be a whole number."""
        x = self.value(node)
        need(x.width == NUMBER and x.number == int(x.number), node, "whole number needed here.")
        return int(x.number)
