"""Expressions of reward programs, recorded as torch operations; the language is the tables here.

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

NUMBER, MAX_STEPS = -1, 2000
MODULES = {"torch", "np", "numpy", "math", "F"}
_PREFIXES = MODULES | {"", "torch.nn.functional", "linalg", "torch.linalg", "np.linalg"}
_CONSTANTS = {f"{m}.{c}": getattr(math, c) for m in MODULES - {"F"} for c in ("pi", "e")}
_DTYPES = {"float", "torch.float", "torch.float32", "np.float32"}
_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
_ARITHMETIC |= {ast.Div: operator.truediv, ast.Mod: operator.mod, ast.Pow: torch.pow}
_ARITHMETIC |= {ast.USub: operator.neg, ast.UAdd: operator.pos}
_COMPARISONS = {ast.Lt: torch.lt, ast.LtE: torch.le, ast.Gt: torch.gt, ast.GtE: torch.ge}
_COMPARISONS |= {ast.Eq: torch.eq, ast.NotEq: torch.ne}
_SYMBOLS = {ast.BitAnd: "logical_and", ast.BitOr: "logical_or", ast.Invert: "logical_not"}
_LOGICAL = {name: getattr(torch, name) for name in _SYMBOLS.values()}
_UNARY = ["exp", "log", "log1p", "sqrt", "square", "tanh", "sigmoid", "relu", "abs", "absolute"]
_UNARY += ["sin", "cos", "sign"]
_LIKE = ["zeros_like", "ones_like"]
_ELEMENTWISE = {name: getattr(torch, name) for name in _UNARY + _LIKE}
_ELEMENTWISE |= {name: getattr(torch, name) for name in ("minimum", "maximum", "pow", "hypot")}
_ELEMENTWISE |= {"min": torch.minimum, "max": torch.maximum, "power": torch.pow}
_ELEMENTWISE |= {"dot": operator.mul, "distance": operator.sub}  # and then reduced
_REDUCTIONS = dict.fromkeys(["norm", "vector_norm", "distance"], (torch.linalg.vector_norm, 2, -1))
_REDUCTIONS |= {"sum": (torch.sum, -1), "dot": (torch.sum, -1), "mean": (torch.mean, -1)}
_PARAMETERS = {  # of each function, as torch and numpy order them; x, y and condition are needed
    **dict.fromkeys([*_ELEMENTWISE, *_LOGICAL], "x y"),
    **dict.fromkeys([*_UNARY, "logical_not", "float", "bool", "clone", "detach"], "x"),
    **dict.fromkeys(["norm", "vector_norm"], "x p dim"),
    **dict.fromkeys(["sum", "mean"], "x dim"),
    **dict.fromkeys(["clamp", "clip"], "x min max"),
    **dict.fromkeys([*_LIKE, "to", "type", "tensor"], "x dtype"),
    "where": "condition x y",
}
_ALIASES = {"input": "x", "other": "y", "exponent": "y", "ord": "p", "axis": "dim"}
_ALIASES |= {"a_min": "min", "a_max": "max"}
_METHODS = _PARAMETERS.keys() - {"where", "tensor", "distance", *_LIKE}
FUNCTIONS = _PARAMETERS.keys() - {"bool", "to", "type", "clone", "detach"}
_ADVICE = {
    "BoolOp": "'and' / 'or' do not work on tensors: use (a < b) & (c < d), or |",
    "Not": "'not' does not work on tensors: use ~(a < b)",
    "IfExp": "'a if condition else b' does not work on tensors: use where(condition, a, b)",
    "If": "'if' does not work on tensors: use where(condition, a, b)",
    "MatMult": "'@' would mix robots: use dot(a, b)",
    "Dict": "a dict is allowed only as the components: return total, {'name': value}",
    "Return": "'return' must be the last statement of its function",
    "Expr": "an expression on its own does nothing: assign it or remove it",
}


class ProgramError(ValueError):
    """A reward program was refused or failed: one line that names the construct and its line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split())[:600])


def need(met: object, node: ast.AST | None, message: str) -> None:
    """Raise ProgramError with the line of `node` unless a requirement is met."""
    if not met:
        line = getattr(node, "lineno", None)
        raise ProgramError(message if line is None else f"line {line}: {message}")


def refuse(node: ast.AST, at: ast.AST | None = None) -> None:
    """Raise ProgramError for a construct outside the language."""
    unknown = f"{type(node).__name__} is not part of the language of reward programs"
    need(False, at or node, _ADVICE.get(type(node).__name__, unknown) + ".")


def dotted(node: ast.AST) -> str:
    """Its text if the tree is a dotted name such as torch.linalg.norm; otherwise empty."""
    text = ast.unparse(node)
    return text if re.fullmatch(r"[A-Za-z][\w.]*", text) else ""


class Value(NamedTuple):
    """What an expression stands for: a number, or a tensor known by its slot and its shape."""

    slot: int
    width: int = NUMBER  # 0 for [N], k for [N, k]
    kind: str = "float"  # or "bool", or "field": float here, but outside it may be bool
    number: float = 0.0

    def __str__(self) -> str:
        return "a number" if self.width < 0 else f"[N, {self.width}]" if self.width else "[N]"


class Expressions:
    """Records expressions of `fields` (name -> shape per robot) as operations on numbered slots.

    Equal operations share a slot. Numbers become 0-dim tensors, the faster kind with torch.
    """

    helper: Callable[[ast.Call], Value]  # records a call of one of the program's own functions

    def __init__(self, fields: Mapping[str, tuple[int, ...]]) -> None:
        self.fields, self.steps = fields, 0
        self.scope: dict[str, Any] = {}
        self.helpers: dict[str, ast.FunctionDef] = {}
        self.slots: list[Any] = []
        self.loads: dict[str, int] = {}  # field -> slot
        self.made: dict[int, tuple[Callable[..., Any], tuple[int, ...]]] = {}  # slot -> how
        self._known: dict[Any, int] = {}

    def _slot(self, key: Any, content: Any = None) -> int:
        if key not in self._known:
            self._known[key] = len(self.slots)
            self.slots.append(content)
        return self._known[key]

    def _operand(self, x: Any) -> int:
        if not isinstance(x, Value):  # an argument that torch takes as it is: a dimension, a slice
            return self._slot(repr(x), x)
        number = torch.tensor(x.number, dtype=torch.float32)
        return self._slot(("number", x.number), number) if x.width == NUMBER else x.slot

    def emit(self, function: Callable[..., Any], *operands: Any) -> int:
        """Record function(*operands), Values or raw arguments; return its slot."""
        made = (function, tuple(map(self._operand, operands)))
        self.made.setdefault(self._slot(made), made)
        return self._known[made]

    def step(self, node: ast.AST | None) -> None:
        """Count an operation."""
        self.steps += 1
        need(self.steps <= MAX_STEPS, node, f"more than {MAX_STEPS} operations, loops unrolled.")

    def value(self, node: ast.AST, prefix: str = "expr") -> Any:
        """Record an expression (or, with prefix "stmt", a statement)."""
        self.step(node)
        return getattr(self, f"{prefix}_{type(node).__name__}", refuse)(node)

    def floats(self, *nodes: ast.AST) -> list[Value]:
        """Record expressions, bools as 0.0 and 1.0."""
        values = [self.value(node) for node in nodes]
        slots = [self.emit(Tensor.float, x) if x.kind == "bool" else x.slot for x in values]
        return [x._replace(slot=i, kind="float") for x, i in zip(values, slots, strict=True)]

    def _conditions(self, *nodes: ast.AST, strict: bool = False) -> list[Value]:
        """Record expressions as bool; `strict`: computed floats are no conditions."""
        values = []
        for node in nodes:
            x = self.value(node)
            # & of floats is always a mistake of precedence: a < 1 & b > 2
            good = x.width != NUMBER and not (strict and x.kind == "float")
            need(good, node, "this is no condition: compare, in parentheses, (a < 1) & (b > 2).")
            slot = x.slot if x.kind == "bool" else self.emit(torch.ne, x, Value(-1))
            values.append(x._replace(slot=slot, kind="bool"))
        return values

    def apply(self, node: ast.AST, function: Any, *values: Any, kind: str = "float") -> Value:
        """Record an elementwise function; of numbers alone, compute it now."""
        widths = sorted({x.width for x in values} - {NUMBER})
        if not widths:
            numbers = [torch.tensor(x.number, dtype=torch.float64) for x in values]
            return self._number(node, float(function(*numbers)))
        shapes = f"shapes {' and '.join(map(str, values))} do not fit"
        fit = len(widths) == 1 or (len(widths) == 2 and widths[0] == 1)
        need(fit, node, f"{shapes}: x[:, 0] or norm(x) is one number per robot.")
        if function is torch.pow:  # a Python exponent takes torch's fast ways, as the one to square
            values = tuple(x.number if x.width == NUMBER else x for x in values)
        return Value(self.emit(function, *values), widths[-1], kind)

    def _number(self, node: ast.AST, x: float) -> Value:
        need(abs(x) < 3.4028235e38, node, f"the number {x:g} is not finite in float32.")
        return Value(-1, number=x)

    def expr_Constant(self, node: ast.Constant) -> Value:
        kind, x = type(node.value).__name__, node.value
        need(kind in ("bool", "int", "float"), node, f"{kind} is not a value: use numbers.")
        return self._number(node, float(x) if abs(x) < 1e300 else math.inf)

    def expr_Name(self, node: ast.Name) -> Value:
        x, known = self.scope.get(node.id), f"the fields are {', '.join(self.fields)}"
        need(not isinstance(x, dict), node, f"{node.id!r} is a dict of components, not a value.")
        if x is not None:
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
        if type(op) in _ARITHMETIC:
            return self.apply(node, _ARITHMETIC[type(op)], *self.floats(*parts))
        if type(op) in _COMPARISONS:
            return self.apply(node, _COMPARISONS[type(op)], *self.floats(*parts), kind="bool")
        if type(op) not in _SYMBOLS:
            refuse(op, node)
        values = self._conditions(*parts, strict=True)
        return self.apply(node, _LOGICAL[_SYMBOLS[type(op)]], *values, kind="bool")

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
        x, (*robots, part) = self.value(node.value), getattr(node.slice, "elts", None) or [None]
        last = x.width > 0 and len(robots) == 1 and ast.unparse(robots[0]) in (":", "...")
        need(last, node, f"{x} has no such index: of x [N, k] there are x[:, 0] and x[:, :2].")
        if not isinstance(part, ast.Slice):
            i = self._integer(part)
            need(-x.width <= i < x.width, node, f"index {i} is outside the {x.width} columns.")
            return Value(self.emit(torch.select, x, 1, i % x.width), 0, x.kind)
        *ends, step = [k and self._integer(k) for k in (part.lower, part.upper, part.step)]
        columns = range(x.width)[slice(*ends)]
        need(step in (None, 1) and columns, node, "a slice needs step 1 and a column in reach.")
        key = (slice(None), slice(columns.start, columns.stop))
        return Value(self.emit(operator.getitem, x, key), len(columns), x.kind)

    def _integer(self, node: ast.AST) -> int:
        x = self.value(node)
        need(x.width == NUMBER and x.number == int(x.number), node, "whole number needed here.")
        return int(x.number)

    def expr_Call(self, node: ast.Call) -> Value:
        name = dotted(node.func)
        root, _, last = name.rpartition(".")
        if isinstance(node.func, ast.Attribute) and name.split(".")[0] not in MODULES | {"linalg"}:
            last = node.func.attr
            need(last in _METHODS, node, f"method '.{last}' is not allowed: use functions.")
            return self._builtin(node, last, [node.func.value, *node.args])
        if name in self.helpers:
            return self.helper(node)
        need(name and name not in {*self.scope, *self.fields}, node, "this is not a function.")
        known = root in _PREFIXES and last in FUNCTIONS
        need(known, node, f"unknown function {name!r}: known are {', '.join(sorted(FUNCTIONS))}.")
        return self._builtin(node, last, node.args)

    def bind(self, node: ast.Call, names: list[str], needed: list[str], args: Any) -> dict:
        """Arguments by parameter."""
        bound = dict(zip(names, args, strict=False))
        good = len(args) <= len(names)
        for keyword in node.keywords:
            name = keyword.arg if keyword.arg in names else _ALIASES.get(keyword.arg or "")
            good = good and name in names and name not in bound
            bound[name] = keyword.value
        good = good and all(name in bound for name in needed)
        need(good, node, f"wrong arguments: {', '.join(names)} are those of the function.")
        return bound

    def _builtin(self, node: ast.Call, name: str, args: Sequence[ast.AST]) -> Value:
        names = _PARAMETERS[name].split()
        needed = [k for k in names if k in ("condition", "x", "y")]
        bound = self.bind(node, names, needed, args)
        parts = [bound.pop(k) for k in needed]
        if name == "where":
            values = self._conditions(parts[0]) + self.floats(*parts[1:])
            return self.apply(node, torch.where, *values)
        if name in _LOGICAL:
            return self.apply(node, _LOGICAL[name], *self._conditions(*parts), kind="bool")
        if name == "bool":
            return self._conditions(*parts)[0]
        options = {k: v for k, v in bound.items() if getattr(v, "value", 0) is not None}
        float32 = "dtype" not in options or dotted(options["dtype"]) in _DTYPES
        need(float32, node, "every tensor is float32: leave dtype away, or use .bool().")
        x, *y = self.floats(*parts)
        x = self.apply(node, _ELEMENTWISE[name], x, *y) if name in _ELEMENTWISE else x
        for k, function in (("min", torch.maximum), ("max", torch.minimum)):  # of clamp
            x = self.apply(node, function, x, *self.floats(options[k])) if k in options else x
        return self._reduce(node, name, x, options) if name in _REDUCTIONS else x

    def _reduce(self, node: ast.AST, name: str, x: Value, options: dict[str, ast.AST]) -> Value:
        """Over the last axis, the only one that a program may reduce over."""
        last = "dim" not in options or self._integer(options["dim"]) in (1, -1)
        mixes = f"{name} would mix robots: it needs a vector [N, k] and dim=-1, not {x}."
        need(last and x.width > 0, node, mixes)
        need("p" not in options or self._integer(options["p"]) == 2, node, "only p=2 is known.")
        function, *arguments = _REDUCTIONS[name]
        return Value(self.emit(function, x, *arguments), 0)
