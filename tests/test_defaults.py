"""Every default that a user meets, in one table: whoever changes one says so in `tests/defaults.txt`.

A default is a promise (the numbers of the book were made with it), and no law would notice that it has moved.
`python tests/test_defaults.py` writes the table again; what changed stands in the diff.
"""

import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path

import refscore
from refscore.cli import _parser

TABLE = Path(__file__).with_name("defaults.txt")


def spelled(value):
    """Without addresses, and the same on every machine."""
    return getattr(value, "__qualname__", None) or (value.as_posix() if isinstance(value, Path) else repr(value))


def calls():
    """Every public class, function and method of the package, by the module that defines it."""
    for found in pkgutil.walk_packages(refscore.__path__, "refscore."):
        module = importlib.import_module(found.name)
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", "") != found.name:
                continue
            where = f"{found.name.removeprefix('refscore.')} {name}"
            if inspect.isfunction(thing) or dataclasses.is_dataclass(thing):
                yield where, thing
            if inspect.isclass(thing):
                for method, f in vars(thing).items():
                    if inspect.isfunction(f) and (method == "__call__" or not method.startswith("_")):
                        yield f"{where}.{method}", f


def defaults():
    for where, call in calls():
        factories = {f.name: f.default_factory for f in dataclasses.fields(call)} if inspect.isclass(call) else {}
        for p in inspect.signature(call).parameters.values():
            made = factories.get(p.name, dataclasses.MISSING)
            if p.default is not p.empty:
                yield f"{where}({p.name}) = {spelled(p.default if made is dataclasses.MISSING else made())}"
    for command in ("demo", "reproduce", "samplers"):
        for name, value in vars(_parser().parse_args([command])).items():
            if name != "run":
                yield f"command {command} {name} = {spelled(value)}"


def test_no_default_has_changed():
    found, wanted = set(defaults()), set(TABLE.read_text(encoding="utf-8").splitlines())
    changed = [f"now    {line}" for line in sorted(found - wanted)] + [
        f"before {line}" for line in sorted(wanted - found)
    ]
    assert not changed, "\n".join(["defaults changed; if it is meant: python tests/test_defaults.py", *changed])


def test_the_table_is_no_shorter_than_it_was():
    """The walk finds what it should: a constructor, a field that is made, a function, a method, a command."""
    lines = set(defaults())
    assert {
        "noise.sde VP(beta_max) = 20.0", "commands.samplers Row(evaluations) = []",
        "likelihood.adaptive solve(atol) = 1e-08",
        "laws.mixture GaussianMixture.score(alpha) = 1.0", "command samplers samples = 20000",
        "matching.denoising Denoising(weight) = sigma_squared", "training.optim SGD(rate) = 0.01",
    } <= lines  # fmt: skip
    assert len(lines) > 230
    assert not [line for line in lines if " at 0x" in line or "<factory>" in line]


if __name__ == "__main__":
    TABLE.write_text("\n".join(sorted(defaults())) + "\n", encoding="utf-8")
