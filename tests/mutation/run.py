"""Does the quick suite notice a small mistake? Draw mutants of the package, and run on each the tests that reach it.

    python tests/mutation/run.py                    # 600 mutants; results are appended to build/mutation as they come
    python tests/mutation/run.py --again            # those that no test has noticed, once more: after a new test
    python tests/mutation/run.py --seed 7 -n 1000   # other mutants, more of them

One process imports everything and collects the tests. A fork for each test finds the lines that the test runs, and
what it costs; a change of a file makes only that anew which has to do with it. Then a fork for each mutant puts the
mutated code into the functions that live, and runs the tests that reach the statement, the cheapest first and one
variant of each before the second, until one fails. What runs at import, constants and defaults, wants the modules
anew, which takes seconds in place of a tenth of one. Subprocesses do not see the mutant.

equivalent.txt lists the mutants that nothing could notice, with the reason; they are left out, so that what remains
in the report is what a test is wanted for.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib
import importlib.util
import json
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType

import pytest
from hypothesis import Phase, given, settings, strategies
from mutants import mutants, rank

HERE = Path(__file__).resolve().parent
ALLOWED, TIMES, GIGABYTES = 5.0, 20.0, 12  # a test may take 5 s + 20 times what it took, and 12 GB of addresses


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def lines(path):
    """The records of a file, without one that was cut off."""
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            continue


def codes(code, found=None):
    """Every code object inside a code object, by name, line, and rank among those of the same name and line."""
    found = {} if found is None else found
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            place = inner.co_qualname, inner.co_firstlineno
            found[(*place, sum(key[:2] == place for key in found))] = inner
            codes(inner, found)
    return found


def known(path):
    """The mutants of equivalent.txt: blocks of where, before, after and why, an empty line between them."""
    blocks = path.read_text(encoding="utf-8").split("\n\n") if path.exists() else []
    for block in blocks:
        rows = block.strip().split("\n")
        if len(rows) > 2 and rows[1].startswith("- "):
            yield "\n".join(rows[:3])


class Run:
    """A plugin of pytest, which takes the place of its loop over the tests."""

    def __init__(self, args):
        self.args, self.root, self.out = args, args.root.resolve(), args.root.resolve() / args.out
        self.failed = self.passed = False
        self.covered, self.drawn, self.verdicts, self.equivalent, self.stale = {}, [], {}, set(), set()

    def pytest_runtest_logreport(self, report):
        self.failed |= report.failed
        self.passed |= report.passed and report.when == "call"

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config):
        quick = {"max_examples": 25, "derandomize": True, "deadline": None, "database": None}
        settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate, Phase.target], **quick)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        if session.testsfailed:
            raise session.Failed("the tests cannot be collected")
        given(strategies.integers())(lambda n: None)()  # Hypothesis reads the sources once, not in each fork
        session.config._tmp_path_factory.getbasetemp()
        self.items = {item.nodeid: item for item in session.items}
        self.cover()
        for record in self.covered.values():
            for name in record.get("modules", ()):  # what tests import as they run, once and for all
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        self.forget()
        gc.freeze()
        self.kill()
        return True

    def forget(self):
        """Clear what was remembered at import: a mutant has to compute it anew."""
        self.living, ours = defaultdict(list), self.ours()
        for thing in gc.get_objects():
            if hasattr(type(thing), "cache_clear") and f"{getattr(thing, '__module__', '')}".split(".")[0] in ours:
                thing.cache_clear()
            elif type(thing) is FunctionType and thing.__code__.co_filename.startswith(str(self.root)):
                code = thing.__code__
                self.living[code.co_filename, code.co_qualname, code.co_firstlineno].append(thing)

    def ours(self):
        """The first names of all modules under the root."""
        files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
        return {name.split(".")[0] for name, file in files.items() if file.startswith(f"{self.root}/")}

    def fork(self, work):
        """Run `work(say)` in a process of its own, and return what it said before it ended or was ended."""
        said = self.out / "said"
        said.write_bytes(b"")
        if not (child := os.fork()):
            try:
                os.setsid()
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))
                for stream in (0, 1, 2):
                    os.dup2(os.open(os.devnull, os.O_RDWR), stream)
                file = os.open(said, os.O_WRONLY | os.O_APPEND)
                work(lambda **word: os.write(file, f"{json.dumps(word)}\n".encode()))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it has started
        return list(lines(said))

    def test(self, name):
        """Run one test: did it pass, fail, or neither?"""
        self.failed = self.passed = False
        item = self.items[name]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return False if self.failed else self.passed or None

    def cover(self):
        """Which lines does each test run, and how long does it take? What has not changed is read from the file."""
        file, now = self.out / "coverage.jsonl", {}
        for record in lines(file):
            tests = {} if self.args.trust else {record["test"].split("::")[0]: record["source"]}
            sources = {**tests, **record["digests"]}
            for path in sources.keys() - now.keys():
                now[path] = digest(self.root / path) if (self.root / path).exists() else ""
            if record["test"] in self.items and all(now[path] == then for path, then in sources.items()):
                self.covered[record["test"]] = record
        missing = [name for name in self.items if name not in self.covered]
        print(f"{len(self.items)} tests, of which {len(missing)} are to be traced", flush=True)
        for name in missing:
            (record,) = self.fork(lambda say, name=name: self.trace(name, say)) or [{}]
            record = {"test": name, "source": digest(self.root / name.split("::")[0]), "lines": {}, **record}
            record["digests"] = {path: digest(self.root / path) for path in record["lines"]}
            self.covered[name] = record
            with file.open("a") as out:
                out.write(f"{json.dumps(record)}\n")

    def trace(self, name, say):
        seen, left, before = defaultdict(set), {}, set(sys.modules)
        package = f"{self.root / self.args.package}/"

        def line(frame, event, arg):
            if event == "line":
                rest = left[id(frame.f_code)]
                rest.discard(frame.f_lineno)
                seen[frame.f_code.co_filename].add(frame.f_lineno)
                return line if rest else None
            return line

        def call(frame, event, arg):
            code = frame.f_code
            if (rest := left.get(id(code))) is None:
                ours = code.co_filename.startswith(package)
                rest = left[id(code)] = {at for *_, at in code.co_lines() if at} if ours else set()
                rest -= set() if code.co_name.startswith("<") else {code.co_firstlineno}  # where `def` stands
                keep.append(code)
            return line if rest else None

        keep = []  # or another code object could get the same id
        signal.alarm(600)
        threading.settrace(call)
        begin = time.perf_counter()
        sys.settrace(call)
        passed = self.test(name)
        sys.settrace(None)
        seconds, found = time.perf_counter() - begin, {}
        for path, those in seen.items():
            found[str(Path(path).relative_to(self.root))] = sorted(those)
        new = sorted(n for n in set(sys.modules) - before if n.split(".")[0] not in self.ours())
        say(passed=passed, seconds=round(seconds, 4), lines=found, modules=new)

    def reaching(self, mutant):
        """The tests that run it: those of its own file first, then of all others a variant of each before the next."""
        variants, order, wanted = Counter(), [], set(mutant.lines)
        *_, folder, file = mutant.path.split("/")
        for record in self.passing[mutant.path]:
            name = record["test"]
            if not mutant.live or not wanted.isdisjoint(record["lines"][mutant.path]):
                function = name.split("[")[0]
                variants[function] += not function.split("::")[0].endswith(f"/{folder}/test_{file}")
                order.append((variants[function], record["seconds"], name))
        return [(seconds, name) for _, seconds, name in sorted(order)]

    def kill(self):
        """Run the drawn mutants that have no verdict yet."""
        args, every, self.passing = self.args, [], defaultdict(list)
        for record in sorted(self.covered.values(), key=lambda record: record.get("seconds", 0)):
            for path in record["lines"] if record.get("passed") else ():
                self.passing[path].append(record)
        equivalent = set(known(self.root / "tests/mutation/equivalent.txt"))
        for path in sorted((self.root / args.package).rglob("*.py")):
            name = path.relative_to(self.root).as_posix()
            if not any(f"/{part}" in name for part in args.leave):
                every += [(m, tree) for tree, found in [mutants(name, path.read_text("utf-8"))] for m in found]
        every.sort(key=lambda pair: rank(pair[0], args.seed))
        drawn = [pair for pair in every if args.only in pair[0].key][: args.number]
        self.verdicts = {record["key"]: record for record in lines(self.out / "results.jsonl")}
        self.drawn, self.equivalent = [m.key for m, _ in drawn], equivalent
        self.stale = equivalent - {m.key for m, _ in every}
        for mutant, tree in drawn:
            old = self.verdicts.get(mutant.key)
            if mutant.key in equivalent or (old and (old["killed"] or not args.again)):
                continue
            record = self.verdict(mutant, tree)
            if record:
                self.verdicts[mutant.key] = record
                with (self.out / "results.jsonl").open("a") as out:
                    out.write(f"{json.dumps(record)}\n")

    def verdict(self, mutant, tree):
        begin, filename = time.perf_counter(), str(self.root / mutant.path)
        try:
            code = mutant.code(tree, filename)
        except SyntaxError:
            return None
        reaching, cost = self.reaching(mutant), 0.0
        tests = [] if mutant.live else [(0.0, name) for name in self.items if name.startswith("tests/test_defaults.py")]
        for seconds, name in reaching:
            cost += seconds + (0 if mutant.live else 0.2)
            if cost > self.args.limit and tests:
                break
            tests.append((seconds, name))
        work = self.swapped if mutant.live and not self.args.fresh else self.anew
        old = compile(tree, filename, "exec", dont_inherit=True)
        said = self.fork(lambda say: work(say, old, code, tests)) if tests else [{"survived": True}]
        survived = bool(said) and said[-1].get("survived", False)
        ran = [word["test"] for word in said if "test" in word]
        return {
            "key": mutant.key, "killed": not survived, "by": ran[-1] if ran and not survived else None,
            "ran": len(ran), "of": len(reaching), "seconds": round(time.perf_counter() - begin, 3),
            "live": mutant.live,
        }  # fmt: skip

    def swapped(self, say, old, new, tests):
        """Put the code that differs into the functions that live."""
        new = codes(new)
        for key, was in codes(old).items():
            if key not in new or was == new[key]:
                continue
            for function in self.living[was.co_filename, *key[:2]]:
                if function.__code__ == was:
                    function.__code__ = new[key]
        for seconds, name in tests:
            signal.setitimer(signal.ITIMER_REAL, ALLOWED + TIMES * seconds)
            say(test=name)
            if self.test(name) is False:
                return
        say(survived=True)

    def anew(self, say, old, new, tests):
        """Forget all modules of ours, and let pytest begin again."""
        get_code = SourceFileLoader.get_code
        SourceFileLoader.get_code = lambda self, name: new if self.path == new.co_filename else get_code(self, name)
        ours, limits = self.ours(), {name: seconds for seconds, name in tests}
        for name in [name for name in sys.modules if name.split(".")[0] in ours]:
            del sys.modules[name]
        sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "AssertionRewritingHook"]

        class Tell:
            def pytest_runtest_logstart(self, nodeid):
                signal.setitimer(signal.ITIMER_REAL, ALLOWED + TIMES * limits.get(nodeid, 1))
                say(test=nodeid)

        signal.setitimer(signal.ITIMER_REAL, 60)
        options = [*OPTIONS, "-x", f"--basetemp={self.out}/anew", "--hypothesis-profile=mutants"]
        if pytest.main([*options, *limits], plugins=[Tell()]) == pytest.ExitCode.OK:
            say(survived=True)

    def report(self):
        """What the tests have not noticed, and how many they have."""
        drawn = [self.verdicts[key] for key in self.drawn if key in self.verdicts and key not in self.equivalent]
        killed = [record for record in drawn if record["killed"]]
        for record in drawn:
            if not record["killed"]:
                why = f"{record['ran']} of {record['of']} tests" if record["of"] else "no test runs it"
                print(f"\n{record['key']}\n  survived {why}")
        for key in sorted(self.stale):
            print(f"\n{key}\n  is in equivalent.txt, and no mutant any more")
        alike = sum(key in self.equivalent for key in self.drawn)
        seconds = sorted(record["seconds"] for record in killed) or [0.0]
        print(
            f"\n{len(self.drawn)} drawn, {alike} equivalent, {len(killed)} of {len(drawn)} others killed"
            f" ({len(killed) / max(len(drawn), 1):.1%}); a kill takes {seconds[len(seconds) // 2]:.2f} s in the median,"
            f" {sum(seconds) / len(seconds):.2f} s on average"
        )


OPTIONS = ["-q", "-s", "--tb=native", "-p", "no:cacheprovider", "-o", "tmp_path_retention_policy=none"]
OPTIONS += ["-n0"] * (importlib.util.find_spec("xdist") is not None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=12, help="another seed, other mutants (12)")
    parser.add_argument("-n", "--number", type=int, default=600, help="mutants drawn (600)")
    parser.add_argument("--only", default="", help="draw from those whose file, function or statement holds this text")
    parser.add_argument("--leave", nargs="*", default=["commands/", "cli.py", "plots.py"], help="parts not drawn from")
    parser.add_argument("--again", action="store_true", help="run survivors once more")
    parser.add_argument("--trust", action="store_true", help="trace no test anew whose file has changed, only new ones")
    parser.add_argument("--fresh", action="store_true", help="import everything anew for each mutant")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of tests that a survivor may cost (60)")
    parser.add_argument("--root", type=Path, default=HERE.parent.parent, help="where package and tests lie")
    parser.add_argument("--package", default="refscore", help="the folder of the package")
    parser.add_argument("--out", default="build/mutation", help="folder for coverage and results")
    args = parser.parse_args()
    run = Run(args)
    run.out.mkdir(parents=True, exist_ok=True)
    os.chdir(run.root)
    pytest.main([*OPTIONS, f"--basetemp={run.out}/tmp", "--hypothesis-profile=mutants"], plugins=[run])
    run.report()


if __name__ == "__main__":
    main()
