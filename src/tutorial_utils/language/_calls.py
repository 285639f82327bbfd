"""Calls of functions and methods in reward programs; the language is the tables here.

A program reaches torch through these tables alone. What would mix robots is not in them.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial, reduce

import torch
from torch.nn import functional

from ._interpreter import LOGICAL, MODULES, Expressions, Function, Value
from ._source import dotted, need

_Nodes = Sequence[ast.expr]
_Options = dict[str, ast.expr]


def _of_torch(words: str) -> dict[str, Function]:
    return {word: getattr(torch, word) for word in words.split()}


_PREFIXES = MODULES | {"", "torch.nn.functional", "linalg", "torch.linalg", "np.linalg"}
_LIKE = _of_torch("zeros_like ones_like")
_UNARY = _LIKE | _of_torch("exp log log1p sqrt square tanh sigmoid relu abs absolute sin cos tan")
_UNARY |= _of_torch("sign acos asin atan floor ceil round log2 log10 expm1 neg logical_not")
_BINARY = _of_torch("minimum maximum pow hypot atan2 full_like logical_and logical_or")
_BINARY |= {"min": torch.minimum, "max": torch.maximum, "power": torch.pow}
_BINARY |= {"add": operator.add, "sub": operator.sub, "mul": operator.mul}
_BINARY |= {"div": operator.truediv, "dot": operator.mul, "distance": operator.sub}
_ELEMENTWISE = _UNARY | _BINARY | {"where": torch.where}
_NEED_DIM = _of_torch("all any amax amin unsqueeze")  # without, torch takes all robots together
_LAST = _NEED_DIM | {"sum": torch.sum, "dot": torch.sum, "mean": torch.mean}
_POWERS = dict.fromkeys(["norm", "vector_norm", "distance"], torch.linalg.vector_norm)
_POWERS |= {"normalize": functional.normalize}  # take p before the axis
_TYPES = dict.fromkeys(["float", "float32", "float64", "double"], "float") | {"bool": "bool"}
_SAME = {"to", "type", "clone", "detach", "tensor", "as_tensor", *_TYPES}  # the type may change
_SETTINGS = {f"{m}{k}": kind for m in ("", "torch.", "np.") for k, kind in _TYPES.items()}
_SETTINGS |= dict.fromkeys(["'cpu'", "'cuda'", "'cuda:0'"], "device")
_PARAMETERS = {  # as torch and numpy order them; x, y and condition are needed
    **dict.fromkeys([*_BINARY], "x y"),
    **dict.fromkeys([*_UNARY, *_SAME], "x"),
    **dict.fromkeys(["sum", "mean", "all", "any", "amax", "amin"], "x dim keepdim"),
    **dict.fromkeys(["norm", "vector_norm"], "x p dim keepdim"),
    **dict.fromkeys(["clamp", "clip"], "x min max"),
    "normalize": "x p dim",
    "unsqueeze": "x dim",
    "where": "condition x y",
}
_ALIASES = {"input": "x", "other": "y", "exponent": "y", "fill_value": "y", "ord": "p"}
_ALIASES |= {"axis": "dim", "a_min": "min", "a_max": "max", "keepdims": "keepdim"}
_METHODS = _PARAMETERS.keys() - {"where", "tensor", "as_tensor", "distance", "full_like", *_LIKE}
_FUNCTIONS = _PARAMETERS.keys() - (_SAME - {"tensor", "as_tensor", "float"})


class Calls(Expressions):
    """Records calls."""

    def setting(self, node: ast.AST) -> str:
        """What is passed on and is no value: "device", or the type "float" or "bool"."""
        if isinstance(node, ast.Attribute) and node.attr in ("device", "dtype"):
            x = self.value(node.value)
            return "device" if node.attr == "device" else "bool" if x.kind == "bool" else "float"
        text = ast.unparse(node)
        known = self.scope.get(text, "" if text in self.fields else _SETTINGS.get(text))
        return known if isinstance(known, str) else ""

    def expr_Call(self, node: ast.Call) -> Value:
        summed = re.fullmatch(r"sum\((\w+)\.values\(\)\)", ast.unparse(node))
        parts = self.scope.get(summed[1]) if summed else None
        if isinstance(parts, dict) and parts:
            values = [self.cast(node, x, "float") for x in parts.values()]
            return reduce(partial(self.apply, node, operator.add), values)
        name = dotted(node.func)
        root, _, last = name.rpartition(".")
        if isinstance(node.func, ast.Attribute) and name.split(".")[0] not in MODULES | {"linalg"}:
            last = node.func.attr
            need(last in _METHODS, node, f"method '.{last}' is not allowed: use functions.")
            return self._builtin(node, last, [node.func.value, *node.args])
        need(name and name not in {*self.scope, *self.fields}, node, "this is not a function.")
        known = ", ".join(get_close_matches(last, _FUNCTIONS, 9, 0.5) or sorted(_FUNCTIONS))
        need(
            root in _PREFIXES and last in _FUNCTIONS,
            node,
            f"unknown function {name!r}: there are {known}.",
        )
        return self._builtin(node, last, node.args)

    def bind(self, node: ast.Call, names: list[str], needed: list[str], args: _Nodes) -> _Options:
        """Arguments by parameter."""
        takes = f"{ast.unparse(node.func):.40}() takes {', '.join(names) or 'nothing'}"
        need(len(args) <= len(names), node, f"{takes}, not {len(args)} arguments.")
        bound = dict(zip(names, args, strict=False))
        for keyword in node.keywords:
            given = keyword.arg or "**"
            name = given if given in names else _ALIASES.get(given, given)
            need(name in names and name not in bound, node, f"{takes}, each once, not {given!r}.")
            bound[name] = keyword.value
        missing = ", ".join(name for name in needed if name not in bound)
        need(not missing, node, f"{takes}: {missing} missing.")
        return bound

    def _builtin(self, node: ast.Call, name: str, args: _Nodes) -> Value:
        """Record a call of a function in the tables; all take a type and a device."""
        alone = name in ("min", "max") and len(args) + len(node.keywords) == 1
        need(not alone, node, f"{name} would mix robots: use a{name}(x, dim=-1) or {name}(x, y).")
        names = [*_PARAMETERS[name].split(), "dtype", "device"]
        needed = [k for k in names if k in ("condition", "x", "y")]
        bound = self.bind(node, names, needed, args)
        parts = [bound.pop(k) for k in needed]
        options = {k: v for k, v in bound.items() if getattr(v, "value", 0) is not None}
        x, kind = self._call(node, name, parts, options), _TYPES.get(name)
        for key in sorted(options.keys() & {"dtype", "device"}):
            given = self.setting(options[key])
            need(given, node, f"{key}={ast.unparse(options[key]):.40} is no {key} known here.")
            kind = kind if given == "device" else given
        return self.cast(node, x, kind) if kind else x

    def _call(self, node: ast.Call, name: str, parts: _Nodes, options: _Options) -> Value:
        if name in _SAME:
            return self.value(parts[0])
        function = _ELEMENTWISE.get(name)
        others = "bool" if function in LOGICAL else "float"
        first = "bool" if name in ("where", "all", "any") else others
        x, *more = self.values(first, parts[0]) + self.values(others, *parts[1:])
        x = self.apply(node, function, x, *more) if function else x
        for k, limit in (("min", torch.maximum), ("max", torch.minimum)):  # of clamp
            if k in options:
                x = self.apply(node, limit, x, *self.values("float", options[k]))
        return self._last(node, name, x, options) if name in _LAST | _POWERS else x

    def _last(self, node: ast.AST, name: str, x: Value, options: _Options) -> Value:
        """Record a function of the last axis, the only one that a program may change."""
        dim = self.integer(options["dim"]) if "dim" in options else -(name not in _NEED_DIM)
        shape, fit = ("[N]", x.width == 0) if name == "unsqueeze" else ("[N, k]", x.width > 0)
        mixes = f"{name} would mix robots: it needs {shape} and dim=-1, and this is {x}."
        need(dim in (1, -1) and fit, node, mixes)
        need("p" not in options or self.integer(options["p"]) == 2, node, "only p=2 is known.")
        arguments = [2, -1] if name in _POWERS else [-1]
        slot = self.emit((_LAST | _POWERS)[name], x, *arguments)
        keep = getattr(options.get("keepdim"), "value", False)
        need(isinstance(keep, bool), node, "keepdim is True or False.")
        if keep:
            return Value(self.emit(torch.unsqueeze, Value(slot, 0), 1), 1, x.kind)
        return Value(slot, {"normalize": x.width, "unsqueeze": 1}.get(name, 0), x.kind)
