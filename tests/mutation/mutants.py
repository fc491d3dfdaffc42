"""Small mistakes, made by machine: what each piece of a program could have been, had its author slipped.

A mutant is one node of the syntax tree replaced by another. It is named by its file, its function, and the statement
before and after (of a compound statement the head), so the name outlives every change elsewhere in the file. Left
alone are words, not numbers: docstrings, annotations, messages (what stands inside `raise` and in f-strings), and the
decorators of classes.
"""

import ast
import copy
import hashlib
from collections import Counter

OPERATORS = {
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.Pow: [ast.Mult],
    ast.FloorDiv: [ast.Div], ast.Mod: [ast.FloorDiv], ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd],
    ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn],
    ast.NotIn: [ast.In], ast.And: [ast.Or], ast.Or: [ast.And],
}  # fmt: skip
NAMES = ["min max", "minimum maximum", "zeros ones", "any all", "sum mean", "exp expm1", "log log1p", "floor ceil"]
NAMES += ["argmin argmax", "sin cos", "alpha sigma", "drift noise", "forward backward", "first last"]
OTHER = {a: b for pair in NAMES for a, b in (pair.split(), pair.split()[::-1])}
ASYMMETRIC = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult)
ASKS = {"isinstance", "issubclass", "getattr", "hasattr", "setattr", "cast", "field", "TypeVar"}
GUARDS = {"strict", "stacklevel"}  # keywords that no right program needs
AROUND = 60
SMALL, LARGE = 1e-4, 1e4  # a tolerance or a guard: doubling it would be no mistake


class Mutant:
    """One node replaced: `parent.field`, or its element `index`, by `new`; it is run with the lines of `where`.

    What runs when a function is called is `live`; the rest runs at import.
    """

    def __init__(self, path, function, live, where, statement, parent, field, index, new):
        self.path, self.function, self.live = path, function, live
        self.place, self.new = (parent, field, index), new
        body = getattr(where, "body", None)
        end = body[0].lineno - 1 if isinstance(body, list) and body else where.end_lineno
        self.lines = range(where.lineno, max(end, where.lineno) + 1)
        before = head(statement)
        node = self.swap(new)
        after = "pass" if node is statement else head(statement)
        self.swap(node)
        self.none = before == after  # two like arguments swapped
        self.key = "\n".join([f"{path}  {function or 'the module'}", *shortened(f"- {before}", f"+ {after}")])

    def swap(self, new):
        """Put a node into the place, and hand back what stood there."""
        parent, field, index = self.place
        old = getattr(parent, field)
        if index is None:
            setattr(parent, field, new)
        else:
            old[index], old = new, old[index]
        return old

    def code(self, tree, filename):
        """The module with this mistake, compiled."""
        old = self.swap(self.new)
        try:
            return compile(ast.fix_missing_locations(tree), filename, "exec", dont_inherit=True)
        finally:
            self.swap(old)


def head(statement):
    """A statement as text; of one that holds others its first line."""
    if not getattr(statement, "body", None):
        return ast.unparse(statement)
    short = copy.copy(statement)
    short.body = [ast.Pass()]
    for field in {"orelse", "finalbody", "handlers", "decorator_list"} & set(short._fields):
        setattr(short, field, [])
    return ast.unparse(short).split(":\n")[0]


def shortened(before, after):
    """Two long lines, each no more than what differs and `AROUND` characters on either side."""
    if max(len(before), len(after)) <= 3 * AROUND:
        return before, after
    most = min(len(before), len(after)) - 2
    left = next((i for i in range(most) if before[2 + i] != after[2 + i]), most)
    right = next((i for i in range(most - left) if before[-1 - i] != after[-1 - i]), most - left)
    left, right = max(left - AROUND, 0), max(right - AROUND, 0)
    return tuple(
        f"{text[:2]}{'… ' * (left > 0)}{text[2 + left : len(text) - right]}{' …' * (right > 0)}"
        for text in (before, after)
    )


def replacements(node):
    """What an expression could have been."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            yield from (ast.BinOp(left, other(), right) for other in OPERATORS.get(type(op), ()))
            if isinstance(op, ASYMMETRIC):
                yield ast.BinOp(right, op, left)
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert(), operand=operand):
            yield operand
        case ast.Compare(left=left, ops=ops, comparators=those):
            for i, op in enumerate(ops):
                for other in OPERATORS[type(op)]:
                    yield ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], those)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(OPERATORS[type(op)][0](), values)
            for i in range(len(values)):
                yield ast.BoolOp(op, rest) if len(rest := values[:i] + values[i + 1 :]) > 1 else rest[0]
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(n)):
            yield from (ast.Constant(n + 1), ast.Constant(n - 1))
        case ast.Constant(value=float(a)):
            yield ast.Constant(1.0 if a == 0 else 2 * a if SMALL < a < LARGE else 100 * a)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Attribute(attr=name) if name in OTHER:
            yield ast.Attribute(node.value, OTHER[name], node.ctx)
        case ast.Name(id=("min" | "max" | "any" | "all") as name):
            yield ast.Name(OTHER[name], node.ctx)
        case ast.Call(func=f, args=args, keywords=keywords) if getattr(f, "id", getattr(f, "attr", "")) not in ASKS:
            for i in range(len(args) - 1):
                if not any(isinstance(a, ast.Starred) for a in args[i : i + 2]):
                    yield ast.Call(f, [*args[:i], args[i + 1], args[i], *args[i + 2 :]], keywords)
            for i, keyword in enumerate(keywords):
                if keyword.arg and keyword.arg not in GUARDS:
                    yield ast.Call(f, args, keywords[:i] + keywords[i + 1 :])


def droppable(statement, bound):
    """A statement without which the program still runs; `bound` are the names that have a value before it."""
    match statement:
        case ast.Expr(value=value):
            return not isinstance(value, ast.Constant)
        case ast.Assign(targets=[target]):
            return not isinstance(target, ast.Name) or target.id in bound
    return isinstance(statement, (ast.AugAssign, ast.Raise, ast.Continue, ast.Break))


def mutants(path, source):
    """Every mutant of a file, and the tree that they change."""
    tree, found, seen = ast.parse(source), [], Counter()

    def add(*what):
        mutant = Mutant(path, *what)
        if mutant.none:
            return
        seen[mutant.key] += 1
        if seen[mutant.key] > 1:
            mutant.key = mutant.key.replace("\n", f" ({seen[mutant.key]})\n", 1)
        found.append(mutant)

    def walk(node, function, live, where, statement, bound):
        if isinstance(node, (ast.JoinedStr, ast.Raise)) or getattr(node, "arg", "") in GUARDS:
            return
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            function = f"{function}.{node.name}" if function else node.name
            if isinstance(node, ast.FunctionDef):
                bound = {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
        test = getattr(node, "test", None)
        if isinstance(node, (ast.If, ast.While)) and not isinstance(test, (ast.Compare, ast.UnaryOp)):
            add(function, live, node, node, node, "test", None, ast.UnaryOp(ast.Not(), test))
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns") or (field == "decorator_list" and isinstance(node, ast.ClassDef)):
                continue
            if isinstance(node, (ast.FunctionDef, ast.Lambda)) and field == "body":
                live, where = True, where if isinstance(node, ast.FunctionDef) else node
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, ast.stmt):
                    if droppable(child, bound):
                        add(function, live, child, child, node, field, index, ast.Pass())
                    walk(child, function, live, child, child, bound)
                    bound |= {a.id for a in ast.walk(child) if isinstance(a, ast.Name) and isinstance(a.ctx, ast.Store)}
                elif isinstance(child, ast.AST):
                    for new in replacements(child):
                        add(function, live, where, statement, node, field, index, new)
                    walk(child, function, live, where, statement, bound)

    walk(tree, "", False, None, None, set())
    return tree, found


def rank(mutant, seed):
    """The order in which mutants are drawn; it does not change for one when another comes or goes."""
    return hashlib.sha256(f"{seed} {mutant.key}".encode()).digest()
