"""The reference says what the code takes: signatures and docstrings agree, examples run and print what they say."""

import ast
import doctest
import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path

import pytest

import refscore

ROOT = Path(refscore.__file__).parent
NOT_A_REFERENCE = {"__init__", "commands", "experiments", "plots", "cli", "museum"}
MODULES = sorted(
    ".".join(("refscore", *path.relative_to(ROOT).with_suffix("").parts))
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).with_suffix("").parts[0] not in NOT_A_REFERENCE
    and path.name != "__init__.py"
    and (path.parent.name != "museum" or path.name == "mistake.py")  # exhibits: programs of others
)
SECTIONS = ("Parameters", "Returns", "Yields", "Raises", "Warns", "Notes", "Examples")
SHORTEST = 15  # characters of a docstring


def public(module):
    """The public classes and functions that a module defines."""
    for name, thing in vars(module).items():
        own = getattr(thing, "__module__", None) == module.__name__ and not name.startswith("_")
        if own and (inspect.isclass(thing) or inspect.isfunction(thing)):
            yield name, thing


THINGS = {f"{m}.{name}": thing for m in MODULES for name, thing in public(importlib.import_module(m))}
BY_NAME = {path.rsplit(".", 1)[1]: thing for path, thing in THINGS.items()}


def sections(thing):
    """Title -> text, the text before the first title under ''."""
    parts = re.split(rf"^({'|'.join(SECTIONS)})\n-+$", inspect.getdoc(thing) or "", flags=re.M)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def entries(thing):
    """Of each line `a, b : type` at the margin of a Parameters section: {a: (type, 0), b: (type, 1)}."""
    heads = re.findall(r"^(\*{0,2}\w[\w, *]*) : (.*)", sections(thing).get("Parameters", ""), flags=re.M)
    return {name.strip(" *"): (said, place) for names, said in heads for place, name in enumerate(names.split(","))}


def documented(thing):
    """The parameters of a docstring; a line "See `Other`." stands for those of Other that it does not name itself."""
    elsewhere = re.findall(r"^See `(\w+)`\.$", sections(thing).get("Parameters", ""), flags=re.M)
    return set(entries(thing)).union(*(documented(BY_NAME[other]) & accepted(thing) for other in elsewhere))


def accepted(thing):
    """The parameters of a call; a Protocol is not called, and exceptions take a message."""
    if inspect.isclass(thing) and (getattr(thing, "_is_protocol", False) or issubclass(thing, BaseException)):
        return set()
    return set(inspect.signature(thing).parameters)


def refuses(thing):
    """Whether its own lines raise, or call a check or a private function of the module that does."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(thing)))):
        name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        private = vars(sys.modules[thing.__module__]).get(name) if name.startswith("_") else None
        if isinstance(node, ast.Raise) or name.startswith(("check_", "settle")):
            return True
        if inspect.isfunction(private) and private is not thing and refuses(private):
            return True
    return False


def test_a_docstring_lists_what_the_signature_takes():
    """Both ways: no parameter without explanation, and no explanation without parameter."""
    differ = {path: documented(thing) ^ accepted(thing) for path, thing in THINGS.items()}
    assert not {path: names for path, names in differ.items() if names}


def default_said(said, place):
    """Of the parameter at this place of `a, b : float, default 1 and 2`; None for what is optional."""
    values = (said.partition("default ")[2] or ("None" if "optional" in said else "")).split(" and ")
    return values[place] if len(values) > 1 else values[0]


def agrees(said, default):
    """Whether a number or string that is said is the default; words (`infinity`, `√10`) are not compared."""
    try:
        return bool(ast.literal_eval(said) == default)
    except (ValueError, SyntaxError):
        return True


def test_a_docstring_tells_each_default():
    """Of all parameters that have one, and of no others."""
    for path, thing in THINGS.items():
        taken = inspect.signature(thing).parameters if accepted(thing) else {}
        for name, (said, place) in entries(thing).items():
            if name in taken and "see `" not in said:
                default, told = taken[name].default, default_said(said, place)
                assert bool(told) == (default is not inspect.Parameter.empty), f"{path}: {name}"
                assert agrees(told, default), f"{path}: {name} is {default!r}, and not {told}"


def test_a_function_says_what_it_returns():
    for path, thing in THINGS.items():
        if inspect.isfunction(thing):
            gives = inspect.signature(thing).return_annotation not in (None, "None")
            assert gives == bool({"Returns", "Yields"} & set(sections(thing))), path


def test_what_refuses_says_so():
    """In a section Raises, of a class or of the method that refuses."""
    silent = [
        path
        for path, thing in THINGS.items()
        if refuses(thing)
        and not any(
            "Raises" in sections(one) for one in (thing, *(vars(thing).values() if inspect.isclass(thing) else ()))
        )
    ]
    assert not silent


def test_every_name_one_can_import_from_the_top_has_an_example():
    here = [thing for name in refscore.__all__ if (thing := getattr(refscore, name)) in THINGS.values()]
    assert len(here) >= 25
    assert not [thing for thing in here if ">>> " not in sections(thing).get("Examples", "")]


def docstrings():
    """Of every public class and function, and of every public method and property."""
    found = {path: inspect.getdoc(thing) or "" for path, thing in THINGS.items()}
    for path, thing in THINGS.items():
        for name, member in vars(thing).items() if inspect.isclass(thing) else ():
            own = getattr(member, "__doc__", None)
            field = name in getattr(thing, "_fields", ())  # of a NamedTuple: Python writes its docstring
            if (name == "__call__" or name[0] != "_") and own and hasattr(type(member), "__get__") and not field:
                found[f"{path}.{name}"] = inspect.cleandoc(own)
    return found


def is_sentence(text):
    """Whether a docstring is long enough and its first paragraph has three words, without the citation, and an end."""
    first = text.split("\n\n")[0].rstrip()
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"Eqs?\.", "", first))
    return len(text) >= SHORTEST and len(words) >= 3 and re.search(r"[.:]$|Eqs?\. \([\d.]+\)", first) is not None


def test_docstrings_are_sentences():
    """Read alone, in help(): not a letter, not shapes alone."""
    assert not {path: text for path, text in docstrings().items() if not is_sentence(text)}
    assert not any(is_sentence(text) for text in ("h.", "whatever u", "x (B, ...) at t -> x (B, ...) at s.", "g(t)²."))


@pytest.mark.recorded("what a docstring prints")
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_print_what_they_say(name):
    """Each alone, with nothing imported but what it imports itself."""
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    for example in doctest.DocTestFinder().find(importlib.import_module(name), globs={}):
        failures = runner.run(example)
        assert failures.failed == 0, example.name
