"""What the library asks of an array library, read from its source: names, numbers of arguments, keywords."""

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.oracles.book import ROOT

NAMESPACES = ("array_namespace", "namespace")  # functions that answer with one


class Use(NamedTuple):
    """One `xp.name`, or one call of it: `arguments` is None where it is not called, or where `*` hides how many."""

    where: str
    name: str
    arguments: int | None = None
    keywords: tuple[str, ...] = ()


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Every file of the package, with its name."""
    for path in sorted((ROOT / "refscore").rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def in_core(where: str, tree: ast.AST) -> bool:
    """Whether a file works on arrays of any library: it imports neither NumPy nor SciPy, and is no command."""
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return not {name.split(".")[0] for name in names} & {"numpy", "scipy"} and not any(
        f"/{folder}/" in where for folder in ("commands", "museum", "clinic")
    )


def is_namespace(node: ast.AST) -> bool:
    """xp, backend.xp, array_namespace(...): every way in which the library holds a namespace."""
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", "") in NAMESPACES
    return getattr(node, "id", "") == "xp" or getattr(node, "attr", "") == "xp"


def uses(where: str, tree: ast.AST, of: Callable[[ast.AST], bool] = is_namespace) -> list[Use]:
    """Every use of a name of `of`, with the call around it if there is one."""
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inside:  # of xp.linalg.solve the whole
            inner: Any = node
            name = ""
            while isinstance(inner, ast.Attribute) and not of(inner):
                name, inner = f"{inner.attr}.{name}", inner.value
            if name and of(inner):
                found.append(_use(f"{where}:{node.lineno}", name.rstrip("."), calls.get(id(node))))
    return found


def _use(where: str, name: str, call: ast.Call | None) -> Use:
    if call is None:
        return Use(where, name)
    hidden = any(isinstance(argument, ast.Starred) for argument in call.args)
    return Use(where, name, None if hidden else len(call.args), tuple(k.arg for k in call.keywords if k.arg))


def lacks(library: Any, use: Use) -> str:
    """What the library lacks for this use, or nothing."""
    thing = library
    for part in use.name.split("."):
        if not hasattr(thing, part):
            return f"{use.where}: no {use.name}"
        thing = getattr(thing, part)
    if use.arguments is None or not callable(thing):
        return ""
    if hasattr(thing, "nin"):  # a ufunc: of NumPy and CuPy
        fits = use.arguments == thing.nin and not use.keywords
        return "" if fits else f"{use.where}: {use.name} takes {thing.nin} arguments, and no keywords"
    said = ""
    for signature in signatures(thing):
        try:
            signature.bind(*range(use.arguments), **dict.fromkeys(use.keywords))
        except TypeError as error:
            said = f"{use.where}: {use.name}: {error}"
        else:
            return ""
    return said


def signatures(function: Any) -> list[inspect.Signature]:
    """Of any function; where it is written in C, those of its documentation: several, or none."""
    try:
        whole = inspect.signature(function)
        named = [p for p in whole.parameters.values() if p.kind != p.VAR_KEYWORD]  # what a wrapper hands on may not fit
        return [whole.replace(parameters=named)]
    except ValueError:
        name = str(function.__name__).replace("_", "[_.]")  # torch.linalg_eigh is torch.linalg.eigh
        lines = re.findall(rf"^(?:\.\. function:: )?{name}\((.*)\) ?->", inspect.getdoc(function) or "", flags=re.M)
        return [_signature(line.replace("\\", "")) for line in lines]


NUMPYS = {"dim": "axis", "keepdim": "keepdims"}  # torch's functions in C take NumPy's words for these, too


def _signature(line: str) -> inspect.Signature:
    function = ast.parse(f"def f({line}): ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    given, kind = function.args, inspect.Parameter
    needed = len(given.args) - len(given.defaults)
    return inspect.Signature([
        *(kind(NUMPYS.get(a.arg, a.arg), kind.POSITIONAL_OR_KEYWORD, default=kind.empty if i < needed else None)
          for i, a in enumerate(given.args)),
        *(kind(NUMPYS.get(a.arg, a.arg), kind.KEYWORD_ONLY, default=None) for a in given.kwonlyargs),
    ])  # fmt: skip
