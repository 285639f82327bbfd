"""Statements, functions and components of reward programs."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ._calls import Calls
from ._interpreter import Content, Value
from ._words import FUNCTIONS, MODULES, VIEWS, dotted, fail, need, put, refuse, vector

MAX_ELEMENTS, MAX_COMPONENTS, MAX_CALLS = 8, 12, 8
_MODULE = r"(torch|torch\.nn( as nn)?|torch\.nn\.functional as F|numpy( as np)?|math|typing)"
_FROM = r"from (typing|(?P<owner>torch(\.nn(\.functional)?|\.linalg)?|math|numpy)) import "
_IMPORT = rf"import {_MODULE}(, {_MODULE})*|{_FROM}(?P<names>\w+( as F)?(, \w+)*)"
_IMPORTED = FUNCTIONS | {"Tensor", "nn", "functional as F"}
_DECORATORS = {"torch.jit.script", "torch.no_grad()", "torch.inference_mode()"}
_SCALED = (operator.mul, operator.truediv, operator.neg, Tensor.float)


class Program(Calls):
    """Records statements and functions."""

    def __init__(self, fields: Mapping[str, tuple[int, ...]], tree: ast.Module) -> None:
        super().__init__(fields)
        self.calls: tuple[str, ...] = ()  # the helpers that are being called
        self.names: dict[int, str] = {}  # slot -> the variable of compute_reward that holds it
        self.defaults: dict[str, dict[str, Content]] = {}  # of the functions' parameters
        self.constants: dict[str, Content] = {}
        for node in tree.body:
            self._record(node, "top" if isinstance(node, ast.FunctionDef) else "stmt")
        for x in self.scope.values():  # settings, such as a device, and numbers
            number = isinstance(x, str) or (isinstance(x, Value) and x.width < 0)
            need(number, None, "only numbers can be assigned outside the functions.")
        self.constants = self.scope.copy()

    def _record(self, node: ast.AST, prefix: str = "stmt") -> None:
        self.step(node)
        getattr(self, f"{prefix}_{type(node).__name__}", refuse)(node)

    def top_FunctionDef(self, node: ast.FunctionDef) -> None:
        a = node.args
        extra = [x for x in node.decorator_list if ast.unparse(x) not in _DECORATORS]
        star = a.vararg or a.kwarg or a.posonlyargs or a.kwonlyargs
        plain = not extra and not star and not getattr(node, "type_params", [])
        need(plain, node, f"{node.name} may have no * or **, no / and no decorators.")
        free = node.name not in {*self.helpers, *MODULES, *self.fields}
        need(free, node, f"the name {node.name!r} is taken: choose another one.")
        names = [x.arg for x in a.args][len(a.args) - len(a.defaults) :]
        defaults = [Value(-1, number=self.real(x)) for x in a.defaults]
        self.defaults[node.name] = dict(zip(names, defaults, strict=True))
        self.helpers[node.name] = node

    def run(self) -> dict[str, Value]:
        """Record `compute_reward`: its total, named "", and its components."""
        named = [name for name in self.helpers if name.startswith("compute_reward")]
        name = "compute_reward" if "compute_reward" in named else ", ".join(named)
        found = name or ", ".join(self.helpers) or "none"
        need(name in named, None, f"one function must be named compute_reward, not {found}.")
        node, given = self.helpers.pop(name), self.defaults[name]
        self.scope |= given
        for x in node.args.args:
            known = f"the fields are {', '.join(self.fields)}"
            need(x.arg in {*self.fields, *given}, x, f"unknown field {x.arg!r}: {known}.")
            need(x.arg not in self.fields.keys() & given, x, f"field {x.arg!r} takes no default.")
        self.asked = [x.arg for x in node.args.args if x.arg in self.fields]
        returned = self._body(node)
        several = returned.elts if isinstance(returned, ast.Tuple) else []
        first, second = several if len(several) == 2 else (returned, ast.Dict([], []))
        total, parts = self._row(first, self.value(first)), self._dict(second)
        rows = {"": total} | (parts or self._split(total))
        return {name: self._row(second, x) for name, x in rows.items()}

    def _row(self, node: ast.AST, x: Value) -> Value:
        need(x.width <= 0, node, f"rewards and components are one number per robot, not {x}.")
        if x.width < 0:
            like = self.any_field()
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
        for statement in node.body[:-1]:
            self._record(statement)
        last = node.body[-1]
        if not isinstance(last, ast.Return) or last.value is None:
            fail(last, f"{node.name} must end with a return of its value.")
        return last.value

    def helper(self, node: ast.Call, name: str) -> Value:
        """Record a call of one of the program's own functions."""
        outer, calls, function = self.scope, self.calls, self.helpers[name]
        good = name not in calls and len(calls) < MAX_CALLS
        need(good, node, f"{name!r} calls itself, or calls go more than {MAX_CALLS} deep.")
        optional = list(self.defaults[name])
        needed = [x.arg for x in function.args.args if x.arg not in optional]
        given = self.bind(node, needed, optional, node.args)
        inner: dict[str, Content] = {k: self.setting(x) or self.value(x) for k, x in given.items()}
        self.scope, self.calls = self.constants | self.defaults[name] | inner, (*calls, name)
        result = self.value(self._body(function))
        self.scope, self.calls = outer, calls
        return result

    def _content(self, node: ast.expr) -> Content:
        """What a name can stand for."""
        if self._is_dict(node):
            return self._dict(node)
        known = self.scope.get(dotted(node))
        return known if isinstance(known, dict) else self.setting(node) or self.value(node)

    def _is_dict(self, node: ast.expr) -> bool:
        called = dotted(node.func) if isinstance(node, ast.Call) else ""
        return isinstance(node, ast.Dict) or called == "dict" not in self.helpers

    def _dict(self, node: ast.expr) -> dict[str, Value]:
        """Components."""
        known = self.scope.get(dotted(node))
        if isinstance(known, dict):
            return known
        keys: list[object]
        if isinstance(node, ast.Dict):
            keys, values = [getattr(key, "value", None) for key in node.keys], node.values
        elif isinstance(node, ast.Call) and self._is_dict(node) and not node.args:
            keys, values = [k.arg for k in node.keywords], [k.value for k in node.keywords]
        else:
            fail(node, "components must be a dict, {'name': value}.")
        names = [self._key(node, key) for key in keys]
        once = len(set(names)) == len(names) <= MAX_COMPONENTS
        need(once, node, f"at most {MAX_COMPONENTS} components, each once.")
        return dict(zip(names, map(self.value, values), strict=True))

    def _key(self, node: ast.expr, key: object) -> str:
        if not isinstance(key, str) or not re.fullmatch(r"(?a)[A-Za-z]\w{,39}", key):
            fail(node, f"a component's name has letters, digits and _, not {key!r:.40}.")
        return key

    def stmt_Assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> None:
        value = node.value or refuse(node)
        if isinstance(node, ast.AugAssign):
            value = ast.copy_location(ast.BinOp(node.target, node.op, value), node)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        shared = len(targets) > 1 and self._is_dict(value)
        need(not shared, node, "each dict of components needs one name: parts = {}.")
        if isinstance(targets[0], ast.Subscript) and len(targets) == 1:
            return self._set_item(targets[0], value, isinstance(node, ast.AugAssign))
        for target in targets:
            self._assign(target, value)

    def _set_item(self, target: ast.Subscript, node: ast.expr, in_place: bool) -> None:
        """Record parts["name"] = value, where no other name holds the same dict."""
        parts = self.scope.get(dotted(target.value))
        if isinstance(parts, Value):
            return self._set_columns(target, parts, node)
        own = isinstance(parts, dict) and sum(x is parts for x in self.scope.values()) == 1
        if not isinstance(parts, dict) or not own:
            fail(target, "only names, and items of one's own dict parts = {}, can be assigned to.")
        name = self._key(target, getattr(target.slice, "value", None))
        alone = not in_place or name not in parts or self._holders(parts[name]) <= 1
        need(alone, target, f"this changes a variable too: parts[{name!r}] = parts[{name!r}] + ...")
        parts[name] = self.value(node)
        need(len(parts) <= MAX_COMPONENTS, target, f"at most {MAX_COMPONENTS} components.")

    def _set_columns(self, target: ast.Subscript, x: Value, node: ast.expr) -> None:
        """Record x[:, i] = value, where no other name holds the same numbers."""
        made = self.made.get(x.slot, (vector, ()))[0] is not vector and x.kind == "float"
        own = made and self._holders(x) == 1 and not self.calls
        need(own, target, "columns can be assigned to in a copy of one's own, y = x.clone().")
        columns, (v,) = self.columns(target, x), self.floats(node)
        fits = (1, columns.stop - columns.start) if isinstance(columns, slice) else (0,)
        need(v.width in (-1, *fits), target, f"{v} does not fit these columns.")
        self.scope[dotted(target.value)] = Value(self.emit(put, x, columns, v), x.width)

    def _holders(self, x: Value) -> int:
        """How many names hold these numbers, or a view of them."""
        count = 0
        for content in self.scope.values():
            for value in content.values() if isinstance(content, dict) else [content]:
                slot = value.slot if isinstance(value, Value) else -1
                while slot in self.made and self.made[slot][0] in VIEWS:
                    slot = self.made[slot][1][0]
                count += slot == x.slot
        return count

    def _assign(self, target: ast.expr, node: ast.expr) -> None:
        """Bind after all is recorded, so that a, b = b, a swaps."""
        names, values = [target], [node]
        if isinstance(target, ast.Tuple) and isinstance(node, ast.Tuple | ast.List):
            names, values = target.elts, node.elts
        need(len(names) == len(values), target, "as many names as values are needed.")
        for name, content in zip(names, [self._content(x) for x in values], strict=True):
            if not isinstance(name, ast.Name):
                fail(name, "only names can be assigned to, or as many names as values.")
            free = name.id not in {*self.fields, *self.helpers, *MODULES}
            need(free, target, f"the name {name.id!r} is taken: choose another one.")
            self.scope[name.id] = content
            if isinstance(content, Value) and content.width == 0 and not self.calls:
                self.names.setdefault(content.slot, name.id)

    def stmt_For(self, node: ast.For) -> None:
        elements = self.elements(node.iter)
        good = 0 < len(elements) <= MAX_ELEMENTS and not node.orelse
        need(good, node, f"for needs a literal tuple of at most {MAX_ELEMENTS}: for x in (a, b).")
        for element in elements:
            self._assign(node.target, element)
            for statement in node.body:
                self._record(statement)

    def stmt_Expr(self, node: ast.Expr | ast.Pass) -> None:
        if not isinstance(getattr(node, "value", ast.Constant(0)), ast.Constant):  # a docstring
            refuse(node)

    def stmt_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        text = ast.unparse(node)
        found = re.fullmatch(_IMPORT, text)
        future = node.col_offset == 0 and text == "from __future__ import annotations"
        need(found or future, node, f"import torch, math, numpy only, not {text[7:47]!r}.")
        names = found["names"].split(", ") if found and found["owner"] else []
        bad = ", ".join(name for name in names if name not in _IMPORTED)
        need(not bad, node, f"{bad:.40} cannot be imported.")

    stmt_AnnAssign = stmt_AugAssign = stmt_Assign
    stmt_Pass, stmt_ImportFrom = stmt_Expr, stmt_Import
