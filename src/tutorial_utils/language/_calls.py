"""Calls of functions and methods in reward programs; see `_words` for which there are."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial, reduce

import torch
from torch import Tensor

from . import _words as words
from ._interpreter import MAX_WIDTH, Expressions, Value
from ._words import dotted, fail, need

_Options = Mapping[str, ast.expr]


class Calls(Expressions):
    """Records calls."""

    helper: Callable[[ast.Call, str], Value]  # records a call of one of the program's own functions

    def _resolve(self, node: ast.Call) -> tuple[str, Sequence[ast.expr]]:
        """The function that is called, and its arguments."""
        name = dotted(node.func)
        root, _, last = name.rpartition(".")
        module = name.split(".")[0] in words.MODULES | {"linalg"}
        if isinstance(node.func, ast.Attribute) and not module:
            last = node.func.attr
            need(last in words.METHODS, node, f"method '.{last}' is not allowed: use functions.")
            return last, [node.func.value, *node.args]
        need(name and name not in {*self.scope, *self.fields}, node, "this is not a function.")
        if root not in words.PREFIXES or last not in words.FUNCTIONS:
            near = get_close_matches(last, words.FUNCTIONS, 9, 0.5)
            known = ", ".join(near or sorted(words.FUNCTIONS))
            fail(node, f"unknown function {name!r}: known {'near it ' * bool(near)}are {known}.")
        return last, node.args

    def expr_Call(self, node: ast.Call) -> Value:
        if isinstance(node.func, ast.Name) and node.func.id in self.helpers:
            return self.helper(node, node.func.id)
        return self._builtin(node, *self._resolve(node))

    def best(self, node: ast.Call) -> Value:
        """Record max(x, dim=-1) or min, whose values stand beside their places in torch."""
        name, args = self._resolve(node)
        need(name in ("max", "min"), node, "only max(x, dim=-1) and min have .values and [0].")
        return self._builtin(node, f"a{name}", args)

    def bind(
        self, node: ast.Call, needed: list[str], optional: list[str], args: Sequence[ast.expr]
    ) -> dict[str, ast.expr]:
        """Arguments by parameter."""
        names = needed + optional
        takes = f"{ast.unparse(node.func):.40}() takes {', '.join(names) or 'nothing'}"
        need(len(args) <= len(names), node, f"{takes}, not {len(args)} arguments.")
        bound = dict(zip(names, args, strict=False))
        for keyword in node.keywords:
            given = keyword.arg or "**"
            name = given if given in names else words.ALIASES.get(given, given)
            need(name in names, node, f"{takes}, but no {given!r}.")
            need(name not in bound, node, f"{takes}, and {given!r} only once.")
            bound[name] = keyword.value
        missing = ", ".join(name for name in needed if name not in bound)
        need(not missing, node, f"{takes}: {missing} missing.")
        return bound

    def _builtin(self, node: ast.Call, name: str, args: Sequence[ast.expr]) -> Value:
        needed, optional = (part.split() for part in words.PARAMETERS[name].split("|"))
        optional += [k for k in ("dtype", "device") if k not in optional]
        bound = self.bind(node, needed, optional, args)
        options = {k: v for k, v in bound.items() if k not in needed and not _left_out(v)}
        kinds = ["int"] * (name in ("int", "long"))
        for key in [k for k in ("dtype", "device") if k in options]:
            kinds.append(self.setting(options[key]))
            given = f"{key}={ast.unparse(options[key]):.40}"
            need(kinds[-1] not in ("", "robots"), node, f"{given} is no type or device known here.")
        x = self._call(node, name, [bound[k] for k in needed], options)
        if "bool" in kinds:
            return self.truth(node, x)
        return self.apply(node, torch.trunc, self.as_float(x)) if "int" in kinds else x

    def _call(self, node: ast.Call, name: str, parts: list[ast.expr], options: _Options) -> Value:
        first, kind = parts[0], "bool" if name in words.BOOLS else "float"
        if name in words.LOGICAL:
            return self.apply(node, words.LOGICAL[name], *map(self.condition, parts), kind=kind)
        if name == "where":
            return self.apply(node, torch.where, self.condition(first), *self.floats(*parts[1:]))
        if name == "bool":
            return self.condition(first)
        if name in ("any", "all"):
            return self._reduce(node, name, self.condition(first), options)
        if name in words.JOINS:
            return self._join(node, name, self.floats(*self.elements(first)), options)
        if name in ("zeros", "ones", "full"):
            sizes = first.elts if isinstance(first, ast.Tuple) else [first]
            good = [self.setting(size) for size in sizes] == ["robots"]
            need(good, node, f"{name} needs the number of robots, as len(x) or x.shape[0].")
            return Value(-1, number=self.real(parts[1]) if parts[1:] else float(name == "ones"))
        if name in ("tensor", "as_tensor") and isinstance(first, ast.List | ast.Tuple):
            return self.vector(node, [self.real(x) for x in first.elts])
        if name == "sum" and "dim" not in options and (terms := self.elements(first)):
            return reduce(partial(self.apply, node, operator.add), self.floats(*terms))
        x, *others = self.floats(first, *parts[1:], *[v for k, v in options.items() if k == "y"])
        if name in words.ELEMENTWISE and (others or name not in ("min", "max")):
            x = self.apply(node, words.ELEMENTWISE[name], x, *others, kind=kind)
            return self._reduce(node, name, x, {}) if name in ("dot", "distance") else x
        if name == "full_like":
            fill = self.real(parts[1])
            return (
                x._replace(slot=self.emit(torch.full_like, x, fill)) if x.width >= 0 else others[0]
            )
        for k, function in (("min", torch.maximum), ("max", torch.minimum)):  # of clamp
            x = self.apply(node, function, x, *self.floats(options[k])) if k in options else x
        if name == "clone" and x.width > 0:  # its columns can be assigned to
            return x._replace(slot=self.emit(Tensor.clone, x))
        if name in words.SQUEEZES | {"unsqueeze"}:
            return self._reshape(node, name, x, options)
        return self._reduce(node, name, x, options) if name in words.REDUCTIONS else x

    def _axis(self, node: ast.AST, name: str, options: _Options, hint: str = "") -> None:
        """The last axis is the only one that a program may change."""
        last = "dim" in options and self.integer(options["dim"]) in (1, -1)
        need(last, node, f"{name} would mix robots: it needs dim=-1{hint}.")

    def _reduce(self, node: ast.AST, name: str, x: Value, options: _Options) -> Value:
        hint = f" and a vector [N, k], not {x}" * (x.width <= 0)
        hint += ", or a second tensor" * (name in ("min", "max"))
        if x.width <= 0 or "dim" in options or name in words.NEED_AXIS:
            self._axis(node, name, options if x.width > 0 else {}, hint)
        arguments: list[float] = [-1]
        if name in words.POWERS:
            p = self.real(options["p"]) if "p" in options else 2
            arguments = [int(p) if p == int(p) else p, -1]
            arguments += [self.real(options["eps"])] if "eps" in options else []
        kind = "bool" if name in words.BOOLS else "float"
        y = Value(self.emit(words.REDUCTIONS[name], x, *arguments), 0, kind)
        keep = getattr(options.get("keepdim"), "value", False)
        need(isinstance(keep, bool), node, "keepdim is True or False.")
        if name in words.KEPT:
            return y._replace(width=x.width)
        return Value(self.emit(torch.unsqueeze, y, 1), 1, kind) if keep else y

    def _join(self, node: ast.AST, name: str, values: list[Value], options: _Options) -> Value:
        self._axis(node, name, options)
        widths, single = [x.width for x in values], name == "stack"
        good = widths and (set(widths) == {0} if single else min(widths) > 0)
        width = len(widths) if single else sum(widths)
        of = "[N]" if single else "[N, k]"
        need(
            good and width <= MAX_WIDTH, node, f"{name} needs a list of {of}, {MAX_WIDTH} columns."
        )
        return Value(self.emit(words.JOINS[name], *values), width)

    def _reshape(self, node: ast.AST, name: str, x: Value, options: _Options) -> Value:
        """[N, 1] to [N], or with unsqueeze(-1) and view(-1, 1) [N] to [N, 1]."""
        if "dim" in options or name == "unsqueeze":
            self._axis(node, name, options)
        k = self.integer(options["columns"]) if "columns" in options else None
        if x.width == 0 and (name == "unsqueeze" or k == 1):
            return Value(self.emit(torch.unsqueeze, x, 1), 1)
        fit = name != "unsqueeze" and (name == "squeeze" or k == x.width or (x.width < 2 and not k))
        need(fit, node, f"{name} gives [N] or [N, 1] here, and {x} does not fit.")
        squeezed = x.width == 1 and k is None
        return Value(self.emit(torch.select, x, 1, 0), 0) if squeezed else x


def _left_out(node: ast.AST) -> bool:
    """Is an argument None, or the norm's other name for p=2?"""
    return isinstance(node, ast.Constant) and node.value in (None, "fro")
