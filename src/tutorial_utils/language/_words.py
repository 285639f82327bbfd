"""The words of reward programs: functions, their parameters, operators, and how they are refused.

A program reaches torch through these tables alone. What would mix robots is not in them.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor
from torch.nn import functional

Function = Callable[..., Tensor]


def _of(owner: object, words: str) -> dict[str, Function]:
    return {word: getattr(owner, word) for word in words.split()}


def stack(*columns: Tensor) -> Tensor:
    """Numbers [N] side by side: [N, k]."""
    return torch.stack(columns, dim=1)


def cat(*parts: Tensor) -> Tensor:
    """Vectors [N, k] one after the other: [N, sum of k]."""
    return torch.cat(parts, dim=1)


def put(x: Tensor, columns: int | slice, values: Tensor) -> Tensor:
    """A copy of x [N, k] with other values in these columns."""
    x = x.clone()
    x[:, columns] = values
    return x


def vector(like: Tensor, *numbers: float) -> Tensor:
    """The same numbers for each robot of `like`: [N, k]."""
    return like.new_tensor([numbers]).expand(len(like), -1)


MODULES = {"torch", "np", "numpy", "math", "F"}
PREFIXES = MODULES | {"", "torch.nn.functional", "linalg", "torch.linalg", "np.linalg"}
PREFIXES |= {"numpy.linalg"}
CONSTANTS = {f"{m}.{c}": getattr(math, c) for m in MODULES - {"F"} for c in ("pi", "e")}
ARITHMETIC: dict[type[ast.AST], Function] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: torch.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
COMPARISONS: dict[type[ast.AST], Function] = {ast.Lt: torch.lt, ast.LtE: torch.le, ast.Gt: torch.gt}
COMPARISONS |= {ast.GtE: torch.ge, ast.Eq: torch.eq, ast.NotEq: torch.ne}
SYMBOLS: dict[type[ast.AST], str] = {ast.BitAnd: "logical_and", ast.BitOr: "logical_or"}
SYMBOLS |= {ast.Invert: "logical_not"}

LOGICAL = _of(torch, "logical_and logical_or logical_xor logical_not")
_TESTED = _of(torch, "isfinite isnan isinf")
_COMPARED = _of(torch, "lt le gt ge eq ne less less_equal greater greater_equal not_equal")
_LIKE = _of(torch, "zeros_like ones_like")
_UNARY = _of(torch, "exp exp2 expm1 log log1p log2 log10 sqrt rsqrt square reciprocal tanh sigmoid")
_UNARY |= _of(torch, "relu abs absolute sin cos tan asin acos atan arcsin arccos arctan sinh cosh")
_UNARY |= _of(torch, "sign floor ceil round trunc nan_to_num") | _of(
    functional, "softplus elu silu"
)
_UNARY |= {"neg": operator.neg, "negative": operator.neg}
_BINARY = _of(torch, "minimum maximum pow hypot atan2 arctan2 fmod remainder")
_BINARY |= dict.fromkeys(["add"], operator.add) | dict.fromkeys(["sub", "subtract"], operator.sub)
_BINARY |= dict.fromkeys(["mul", "multiply", "dot"], operator.mul) | {"distance": operator.sub}
_BINARY |= dict.fromkeys(["div", "divide", "true_divide"], operator.truediv)
_CHOSEN = {"min": torch.minimum, "max": torch.maximum}
ELEMENTWISE = _UNARY | _LIKE | _TESTED | _BINARY | _COMPARED | _CHOSEN | {"power": torch.pow}
BOOLS = LOGICAL.keys() | _TESTED.keys() | _COMPARED.keys() | {"any", "all", "bool"}
POWERS: dict[str, Function] = {"normalize": functional.normalize}  # take p before the axis
POWERS |= dict.fromkeys(["norm", "vector_norm", "distance"], torch.linalg.vector_norm)
NEED_AXIS = _of(torch, "any all amax amin prod logsumexp softmax") | {
    "min": torch.amin,
    "max": torch.amax,
}
REDUCTIONS = NEED_AXIS | POWERS | {"sum": torch.sum, "dot": torch.sum, "mean": torch.mean}
KEPT = {"normalize", "softmax"}  # as many columns as before
JOINS = {"stack": stack} | dict.fromkeys(["cat", "concat", "concatenate"], cat)
SAME = {"float", "double", "clone", "detach", "contiguous", "cpu", "cuda", "to", "type"}
VIEWS = {torch.select, torch.unsqueeze, operator.getitem, operator.pos}  # may share memory
SQUEEZES = {"squeeze", "view", "reshape", "flatten"}

PARAMETERS = {  # as torch and numpy order them; after | those that can be left out
    **dict.fromkeys(ELEMENTWISE | LOGICAL, "x y |"),
    **dict.fromkeys(_UNARY | _TESTED, "x |"),
    **dict.fromkeys(["logical_not", "bool", "int", "long"], "x |"),
    **dict.fromkeys(SAME | _LIKE.keys() | {"tensor", "as_tensor"}, "x | dtype"),
    **dict.fromkeys(["norm", "vector_norm"], "x | p dim keepdim"),
    **dict.fromkeys([*NEED_AXIS, "sum", "mean"], "x | dim keepdim"),
    **dict.fromkeys(["min", "max"], "x | y dim keepdim"),
    **dict.fromkeys(["clamp", "clip"], "x | min max"),
    "clamp_min": "x | min",
    "clamp_max": "x | max",
    **dict.fromkeys(JOINS, "tensors | dim"),
    **dict.fromkeys(["zeros", "ones"], "size |"),
    **dict.fromkeys(SQUEEZES, "x | dim columns"),
    "softmax": "x | dim",
    "normalize": "x | p dim eps",
    "full": "size fill |",
    "full_like": "x fill |",
    "unsqueeze": "x | dim",
    "where": "condition x y |",
}
ALIASES = {"input": "x", "other": "y", "exponent": "y", "ord": "p", "axis": "dim", "data": "x"}
ALIASES |= {"a_min": "min", "a_max": "max", "keepdims": "keepdim", "fill_value": "fill"}
METHODS = PARAMETERS.keys() - {"where", "distance", "tensor", "as_tensor", "zeros", "ones", "full"}
METHODS -= {"full_like", *_LIKE, *JOINS}
FUNCTIONS = PARAMETERS.keys() - SAME - {"int", "long", "bool", "view"} | {"float"}
DTYPES = dict.fromkeys(["float", "float32", "float64", "double", "float16", "half"], "float")
DTYPES |= {"bool": "bool"} | dict.fromkeys(["int", "int32", "int64", "long"], "int")
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


def fail(node: ast.AST | None, message: str) -> NoReturn:
    """Raise ProgramError with the line of `node`."""
    line = getattr(node, "lineno", None)
    raise ProgramError(message if line is None else f"line {line}: {message}")


def need(met: object, node: ast.AST | None, message: str) -> None:
    """Raise ProgramError with the line of `node` unless a requirement is met."""
    if not met:
        fail(node, message)


def refuse(node: ast.AST, at: ast.AST | None = None) -> NoReturn:
    """Raise ProgramError for a construct outside the language."""
    unknown = f"{type(node).__name__} is not part of the language of reward programs"
    fail(at or node, _ADVICE.get(type(node).__name__, unknown) + ".")


def dotted(node: ast.AST) -> str:
    """Its text if the tree is a dotted name such as torch.linalg.norm; otherwise empty."""
    text = ast.unparse(node)
    return text if re.fullmatch(r"[A-Za-z][\w.]*", text) else ""
