"""From the answer of a language model to a small tree of syntax, or to a refusal in one line."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from typing import NoReturn

MAX_ANSWER, MAX_SOURCE, MAX_NODES, MAX_DEPTH, MAX_NAME = 65_536, 8_192, 400, 30, 40
_MAIN, _OTHERS = [  # `compute_reward`, or else one whose name begins with that
    re.compile(rf"^([ \t]*)(async[ \t]+)?def[ \t]+{name}", re.MULTILINE)
    for name in (r"compute_reward\b", r"compute_reward\w+")
]
_FENCED = re.compile(r"^[ \t]*(`{3,}+|~{3,}+)[^\n]*+\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.M | re.S)
_CODE = re.compile(r"(async |def |class |@|import )\w|from \S+ import |\w+(: ?float)? *= *[-+.\d]")
_SYMBOLS = (ast.expr_context, ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
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


def extract(answer: str) -> str:
    """The program in a model's answer with its helper functions, without thoughts and prose.

    Of several fenced blocks the last one with a `compute_reward` counts: models correct themselves.
    Without one, so does a function whose name begins with that, as `compute_reward_v2`.

    Raises:
        ProgramError: not text, over 64 KB, without `compute_reward`, or a program over 8 KB.
    """
    short = isinstance(answer, str) and len(answer) <= MAX_ANSWER
    need(short, None, f"an answer must be text of at most {MAX_ANSWER} characters.")
    text = answer.replace("\r\n", "\n").replace("\ufeff", "")
    text = re.sub(r"(?s)<think>.*?(</think>|\Z)", "", text)
    text = text.rpartition("</think>")[2]  # templates may hide where the thoughts begin
    wanted = _MAIN if _MAIN.search(text) else _OTHERS
    blocks = [block for _, block in _FENCED.findall(text) if wanted.search(block)]
    program = textwrap.dedent(blocks[-1] if blocks else text).strip("\n")
    main = wanted.search(program)
    if main is None:
        found = ", ".join(re.findall(r"(?m)^[ \t]*def[ \t]+(\w{1,60})", text)[:5])
        fail(None, f"the answer defines no function compute_reward, but {found or 'none at all'}.")
    try:
        parse(program)  # what is Python as a whole is judged as a whole
    except ProgramError:
        program = program if blocks else _without_prose(program, len(main[1]))
    need(len(program) <= MAX_SOURCE, None, f"the program has more than {MAX_SOURCE} characters.")
    return program.rstrip()


def _without_prose(text: str, margin: int) -> str:
    """The lines at the margin that look like code, and the indented lines that follow them."""
    kept: list[str] = []
    code = False
    for line in text.split("\n"):
        if line.strip() and len(line) - len(line.lstrip()) <= margin:
            code = bool(_CODE.match(line[margin:])) or (code and line.strip()[0] in "#)]}")
        kept += [line] * code
    return textwrap.dedent("\n".join(kept)).strip("\n")


def parse(source: str) -> ast.Module:
    """The syntax tree of a program, whose letters are ASCII; ProgramError if it is not Python."""
    try:
        with warnings.catch_warnings(action="ignore"):
            # "?" does no harm in a comment, and stops letters that only look like ASCII in a name
            return ast.parse(source[: MAX_SOURCE + 1].encode("ascii", "replace").decode())
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ProgramError(f"not Python: {str(error) or 'nested too deeply'}.") from None


def checked(tree: ast.Module) -> ast.Module:
    """The tree if it keeps the limits on size, depth and names."""
    level: list[ast.AST] = [tree]
    nodes = depth = 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        need(nodes <= MAX_NODES, None, f"the program has more than {MAX_NODES} nodes of syntax.")
        need(depth <= MAX_DEPTH, level[0], f"nested more than {MAX_DEPTH} levels deep.")
        for node in level:
            names = [getattr(node, key, None) for key in ("id", "arg", "attr", "name", "asname")]
            for name in [x for x in names if isinstance(x, str)]:
                good = name[0] != "_" and len(name) <= MAX_NAME
                need(good, node, f"the name {name!r:.40} is too long or begins with an underscore.")
            for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
                need(not hint or "(" not in ast.unparse(hint), node, "an annotation is a type.")
        level = [x for y in level for x in ast.iter_child_nodes(y) if not isinstance(x, _SYMBOLS)]
    return tree
