"""Reward programs that a language model wrote, compiled without ever running them as Python.

Language models can write the reward of a task as a program (Eureka: Ma et al. 2024, arXiv
2310.12931). What they write is hostile code until proven otherwise: it is parsed and translated
into a list of torch operations, each of which treats every robot by itself.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._calls import Calls
from ._interpreter import MODULES, Content, Value
from ._source import ProgramError, checked, dotted, extract, fail, need, parse, refuse

__all__ = ["ProgramError", "RewardProgram", "compile_reward", "extract"]

MAX_ELEMENTS, MAX_COMPONENTS, MAX_CALLS = 8, 12, 8
_MODULE = r"(torch|torch\.nn( as nn)?|torch\.nn\.functional as F|numpy( as np)?|math)"
_IMPORT = rf"import {_MODULE}(, {_MODULE})*|from typing import [\w, ]+|from torch import Tensor"
_IMPORT += r"|from torch\.nn import functional as F"
_SCALED = (operator.mul, operator.truediv, operator.neg, Tensor.float)


class _Program(Calls):
    """Records statements and functions."""

    def __init__(self, fields: Mapping[str, tuple[int, ...]], tree: ast.Module) -> None:
        super().__init__(fields)
        self.calls: tuple[str, ...] = ()  # the helpers that are being called
        self.names: dict[int, str] = {}  # slot -> the variable of compute_reward that holds it
        self.constants: dict[str, Content] = {}
        self.fresh = ""  # the variable that the last statement gave a tensor of its own
        for node in tree.body:
            self._record(node, "top" if isinstance(node, ast.FunctionDef) else "stmt")
        for x in self.scope.values():
            number = isinstance(x, str) or (isinstance(x, Value) and x.width < 0)
            need(number, None, "only numbers can be assigned outside the functions.")
        self.constants = self.scope.copy()

    def _record(self, node: ast.AST, prefix: str = "stmt") -> None:
        self.step(node)
        getattr(self, f"{prefix}_{type(node).__name__}", refuse)(node)

    def top_FunctionDef(self, node: ast.FunctionDef) -> None:
        a = node.args
        extra = [x for x in node.decorator_list if ast.unparse(x) != "torch.jit.script"]
        star = a.vararg or a.kwarg or a.posonlyargs or a.kwonlyargs or a.defaults
        plain = not extra and not star and not getattr(node, "type_params", [])
        need(plain, node, f"{node.name} may have no defaults, no * or **, no decorators.")
        free = node.name not in {*self.helpers, *MODULES, *self.fields}
        need(free, node, f"the name {node.name!r} is taken: choose another one.")
        self.helpers[node.name] = node

    def run(self) -> dict[str, Value]:
        """Record `compute_reward`: its total, named "", and its components."""
        named = [name for name in self.helpers if name.startswith("compute_reward")]
        name = "compute_reward" if "compute_reward" in named else ", ".join(named)
        found = f"one function must be named compute_reward, not {name or 'none'}."
        node = self.helpers.pop(name, None) or fail(None, found)
        for x in node.args.args:
            known = f"the fields are {', '.join(self.fields)}"
            need(x.arg in self.fields, x, f"unknown field {x.arg!r}: {known}.")
        returned = self._body(node)
        several = returned.elts if isinstance(returned, ast.Tuple) else []
        first, second = several if len(several) == 2 else (returned, ast.Dict([], []))
        total, parts = self._row(first, self.value(first)), self._content(second)
        if not isinstance(parts, dict):
            fail(second, "components must be a dict, {'name': value}.")
        rows = {"": total} | (parts or self._split(total))
        return {name: self._row(second, x) for name, x in rows.items()}

    def _row(self, node: ast.AST, x: Value) -> Value:
        need(x.width <= 0, node, f"one number per robot is needed here, not {x}.")
        if x.width < 0:
            need(self.fields, None, "a program needs a field, to know how many robots there are.")
            like = self.expr_Name(ast.Name(next(iter(self.loads or self.fields))))
            row = Value(self.emit(torch.select, like, 1, 0), 0) if like.width else like
            return Value(self.emit(torch.full_like, row, x.number), 0)
        return Value(self.emit(Tensor.float, x), 0) if x.kind == "bool" else x

    def _terms(self, slot: int, own: str | None, sign: int = 1) -> list[tuple[str, Value]]:
        """The terms of a sum, also of one that was added up in the variable `own`."""
        self.step(None)  # x = x + x, again and again, has endless terms
        function, operands = self.made.get(slot, (None, ()))
        name, number = self.names.get(slot), self.slots[slot]
        if function in (operator.add, operator.sub) and (name is None or name == own):
            signs = (sign, sign if function is operator.add else -sign)
            return [x for i, s in zip(operands, signs, strict=True) for x in self._terms(i, own, s)]
        x = Value(slot, 0) if number is None else Value(-1, number=float(number))
        while name is None and function in _SCALED:  # a number times a name has that name
            tensors = [i for i in operands if self.slots[i] is None]
            function, operands = self.made.get(tensors[0], (None, ()))
            if len(tensors) > 1:
                break
            name = self.names.get(tensors[0])
        return [(name or "", x if sign > 0 else self.apply(None, operator.neg, x))]

    def _split(self, total: Value) -> dict[str, Value]:
        """The components of a total without a dict: the terms of its sum."""
        self.names = {slot: name for name, slot in self.loads.items()} | self.names
        parts: dict[str, Value] = {}
        for name, x in self._terms(total.slot, self.names.get(total.slot)):
            if x == Value(-1) or self.made.get(x.slot, [0])[0] is torch.zeros_like:  # it begins
                continue
            name = name or f"term_{1 + sum(k.startswith('term_') for k in parts)}"
            name = name if name in parts or len(parts) < MAX_COMPONENTS - 1 else "other"
            parts[name] = self.apply(None, operator.add, parts[name], x) if name in parts else x
        return parts or {"term_1": total}

    def _body(self, node: ast.FunctionDef) -> ast.expr:
        self.fresh = ""  # arguments may be other names of the caller's tensors
        for statement in node.body[:-1]:
            self._record(statement)
        last = node.body[-1]
        if not isinstance(last, ast.Return) or last.value is None:
            fail(last, f"{node.name} must end with a return of its value.")
        return last.value

    def expr_Call(self, node: ast.Call) -> Value:
        name = dotted(node.func)
        if name not in self.helpers:
            return super().expr_Call(node)
        outer, calls, function = self.scope, self.calls, self.helpers[name]
        good = name not in calls and len(calls) < MAX_CALLS
        need(good, node, f"{name!r} calls itself, or calls go more than {MAX_CALLS} deep.")
        names = [x.arg for x in function.args.args]
        given = self.bind(node, names, names, node.args)
        inner: dict[str, Content] = {k: self.setting(x) or self.value(x) for k, x in given.items()}
        self.scope, self.calls = self.constants | inner, (*calls, name)
        result = self.value(self._body(function))
        self.scope, self.calls = outer, calls
        return result

    def _content(self, node: ast.expr) -> Content:
        """What a name can stand for."""
        if isinstance(node, ast.Dict):
            keys = [getattr(key, "value", None) for key in node.keys]
            return self._dict(node, keys, node.values)
        call = node if isinstance(node, ast.Call) and "dict" not in self.helpers else None
        if call and dotted(call.func) == "dict":
            need(not call.args, node, "components are given to dict by name: dict(a=x).")
            names, values = [k.arg for k in call.keywords], [k.value for k in call.keywords]
            return self._dict(node, names, values)
        known = self.scope.get(dotted(node))
        return known if isinstance(known, dict) else self.setting(node) or self.value(node)

    def _dict(self, node: ast.AST, names: list[Any], values: list[ast.expr]) -> dict[str, Value]:
        valid = [isinstance(x, str) and re.fullmatch(r"(?a)[A-Za-z]\w{,39}", x) for x in names]
        good = all(valid) and len(set(names)) == len(names) <= MAX_COMPONENTS
        need(good, node, f"components need names of letters, at most {MAX_COMPONENTS}, each once.")
        return dict(zip(names, map(self.value, values), strict=True))

    def stmt_Assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> None:
        value = node.value or refuse(node)
        targets: list[ast.expr] = node.targets if isinstance(node, ast.Assign) else [node.target]
        anew = len(targets) == 1 and not isinstance(node, ast.AugAssign)
        if anew and isinstance(targets[0], ast.Subscript):
            return self._set_item(targets[0], value)
        if isinstance(node, ast.AugAssign):
            value = ast.copy_location(ast.BinOp(node.target, node.op, value), node)
        self._assign(targets, value)
        if anew and (isinstance(value, ast.BinOp) or ast.unparse(value).endswith(".clone()")):
            self.fresh = dotted(targets[0])

    def _set_item(self, target: ast.Subscript, node: ast.expr) -> None:
        """Record parts["name"] = value or x[:, i] = value, where no other name holds the same."""
        name, fresh, self.fresh = dotted(target.value), self.fresh, ""
        held = self.scope.get(name)
        if isinstance(held, dict) and sum(x is held for x in self.scope.values()) == 1:
            held |= self._dict(target, [getattr(target.slice, "value", None)], [node])
            need(len(held) <= MAX_COMPONENTS, target, f"at most {MAX_COMPONENTS} components.")
        elif isinstance(held, Value) and name == fresh:
            old, new = self.expr_Subscript(target), self._row(node, self.value(node))
            need(old.width == 0, target, "only one column at a time can be assigned to.")
            column = self.slots[self.made[old.slot][1][-1]]
            slot = self.emit(torch.select_scatter, held, new, 1, column)
            self.scope[name], self.fresh = held._replace(slot=slot), name
        else:
            known = "names, items of one's own dict parts = {}, columns right after x = y.clone()"
            fail(target, f"only these can be assigned to: {known}.")

    def _assign(self, targets: list[ast.expr], node: ast.expr) -> None:
        """Bind after all is recorded, so that a, b = b, a swaps."""
        several = isinstance(targets[0], ast.Tuple) and isinstance(node, ast.Tuple | ast.List)
        contents = [self._content(x) for x in (getattr(node, "elts", []) if several else [node])]
        self.fresh = ""
        for target in targets:
            names = target.elts if several and isinstance(target, ast.Tuple) else [target]
            need(len(names) == len(contents), target, "as many names as values are needed.")
            for name, content in zip(names, contents, strict=True):
                if not isinstance(name, ast.Name):
                    fail(name, "only names can be assigned to, or as many names as values.")
                free = name.id not in {*self.fields, *self.helpers, *MODULES}
                need(free, target, f"the name {name.id!r} is taken: choose another one.")
                self.scope[name.id] = content
                if isinstance(content, Value) and content.width == 0 and not self.calls:
                    self.names.setdefault(content.slot, name.id)

    def stmt_For(self, node: ast.For) -> None:
        elements = node.iter.elts if isinstance(node.iter, ast.Tuple | ast.List) else []
        good = 0 < len(elements) <= MAX_ELEMENTS and not node.orelse
        need(good, node, f"for needs a literal tuple of at most {MAX_ELEMENTS}: for x in (a, b).")
        for element in elements:
            self._assign([node.target], element)
            for statement in node.body:
                self._record(statement)

    def stmt_Expr(self, node: ast.Expr | ast.Pass) -> None:
        if not isinstance(getattr(node, "value", ast.Constant(0)), ast.Constant):  # a docstring
            refuse(node)

    def stmt_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        text = ast.unparse(node)
        known = re.fullmatch(_IMPORT, text)
        need(known, node, f"import torch, math, numpy only; this is {text!r:.60}.")

    stmt_AnnAssign = stmt_AugAssign = stmt_Assign
    stmt_Pass, stmt_ImportFrom = stmt_Expr, stmt_Import


@dataclass(frozen=True, repr=False, eq=False)
class RewardProgram:
    """A compiled reward; see `compile_reward`."""

    source: str  # the program's text, helpers included
    components: tuple[str, ...]
    fields: tuple[str, ...]  # those that it reads
    _tape: _Program
    _wanted: list[int]

    def __call__(self, values: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Score all robots: the total [N] and its components {name: [N]}, float32.

        `values` holds a tensor of any type, [N] or [N, k], for each field; others are ignored.
        ProgramError if a field is missing or has another shape, or a result is not finite.
        """
        rows = self.rows(values)
        if not abs(rows.sum().item()) < float("inf"):  # rarely of finite numbers
            finite = zip(["the reward", *self.components], rows.isfinite().all(dim=1), strict=True)
            bad = ", ".join(name for name, good in finite if not good)
            need(not bad, None, f"not finite for some robots: {bad}.")
        total, *components = rows.unbind()
        return total, dict(zip(self.components, components, strict=True))

    def rows(self, values: Mapping[str, Tensor]) -> Tensor:
        """The total and its components, finite or not: [1 + components, N]."""
        slots, n = self._tape.slots.copy(), None
        for name, slot in self._tape.loads.items():
            x, shape = values.get(name), self._tape.fields[name]
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            n = len(x) if n is None and isinstance(x, Tensor) and x.ndim else n
            if not isinstance(x, Tensor) or found != (n, *shape):
                fail(None, f"field {name!r} must be {[n or 'N', *shape]}, not {found}.")
            slots[slot] = x if x.dtype is torch.float32 else x.float()
        for slot, (function, operands) in self._tape.made.items():
            slots[slot] = function(*[slots[i] for i in operands])
        return torch.stack([slots[i] for i in self._wanted])


def compile_reward(source: str, fields: Mapping[str, Sequence[int]]) -> RewardProgram:
    """Compile a model's answer into a reward of all robots at once.

    Args:
        source: the answer, from which `extract` takes the program.
        fields: shape per robot of each field that the program may read, [] or [k].

    Raises:
        ProgramError: one line: what is not allowed, where, and what to write instead.
    """
    text = extract(source)
    known = {k: tuple(s) for k, s in fields.items() if len(s) < 2 and all(0 < x < 9 for x in s)}
    try:
        tape = _Program(known, checked(parse(text)))
        (_, *names), slots = zip(*[(k, x.slot) for k, x in tape.run().items()], strict=True)
        program = RewardProgram(text, tuple(names), tuple(tape.loads), tape, list(slots))
        program.rows({k: torch.full((3, *known[k]), 0.5) for k in program.fields})
    except (RuntimeError, TypeError, IndexError, RecursionError) as error:
        raise ProgramError(f"the program fails on three robots: {error}") from None
    return program
