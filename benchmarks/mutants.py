"""Changes the code in one place at a time, and counts the changes that its tests find.

``python benchmarks/mutants.py`` tries 40 mutants of each module, drawn with a fixed seed,
``python benchmarks/mutants.py NAME ... -n N`` others; it prints each that survives, and the counts
as JSON. A mutant swaps an operator, turns a condition or a truth value round, adds one to a number
or leaves out a call. It is found where one of the module's own tests fails or takes far too long.
Messages and annotations are left alone.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The tests of a module, the quickest first.
TESTS = {
    "_checks": ("bad_calls",),
    "checkpoint": ("checkpoint",),
    "contract": ("silent_wrongness", "data", "properties"),
    "data": ("data", "bad_inputs", "bad_calls", "large", "silent_wrongness"),
    "features": ("features", "data"),
    "losses": ("losses",),
    "neighbors": ("neighbors",),
    "samplers": ("samplers",),
    "storage": ("storage", "hostile_files"),
}
# A plugin's package that is imported already cannot have its assertions rewritten.
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
PAIRS = (
    *((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot)),
    *((ast.In, ast.NotIn), (ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Div)),
    *((ast.BitAnd, ast.BitOr), (ast.Pow, ast.Mult), (ast.FloorDiv, ast.Mult), (ast.Mod, ast.Mult)),
)
SWAPPED = {right: left for left, right in PAIRS} | {left: right for left, right in PAIRS}
# What a reader sees and the interpreter does not act on; the words of errors.
UNSEEN = {"annotation", "returns", "decorator_list", "exc", "values"}
Change = Callable[[], None]


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a tree but annotations and messages."""
    yield tree
    for field, value in ast.iter_fields(tree):
        if field in UNSEEN and not isinstance(tree, ast.BoolOp | ast.Dict):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from nodes(child)


def changed(node: ast.AST) -> tuple[str, object] | None:
    """Field of a node and what to put there; None where there is nothing to change."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in SWAPPED:
            return "ops", [SWAPPED[type(op)]()]
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in SWAPPED:
            return "op", SWAPPED[type(op)]()
        case ast.UnaryOp(op=ast.Not() | ast.USub() as op, operand=operand):
            return "operand", ast.UnaryOp(op, operand)
        case ast.Constant(value=bool() as value):
            return "value", not value
        case ast.Constant(value=int() | float() as value):
            return "value", value + 1
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            return "test", ast.UnaryOp(ast.Not(), test)
        case ast.Expr(value=ast.Call()):
            return "value", ast.Constant(None)
    return None


def mutants(source: str) -> Iterator[tuple[str, ast.AST]]:
    """Each change that can be made, in words, and the tree that has it."""
    tree = ast.parse(source)
    for node in nodes(tree):
        if (change := changed(node)) is None:
            continue
        field, value = change
        kept, before = getattr(node, field), ast.unparse(node).splitlines()[0]
        setattr(node, field, value)
        ast.fix_missing_locations(tree)
        yield f"line {node.lineno}: {before} -> {ast.unparse(node).splitlines()[0]}", tree
        setattr(node, field, kept)


def install(name: str, tree: ast.AST) -> None:
    """Make a tree the module of that name."""
    spec = importlib.util.find_spec(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(tree, spec.origin, "exec"), module.__dict__)


def outlived(name: str, tree: ast.AST, *, limit: float) -> bool:
    """Whether the tests pass with the tree in place of the module, in a process of their own."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    signal.setitimer(signal.ITIMER_REAL, limit)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    try:
        install(f"scdiffaug.{name}", tree)
        files = [str(ROOT / "tests" / f"test_{part}.py") for part in TESTS[name]]
        status = pytest.main([*OPTIONS, *files])
    except BaseException:
        status = 1
    os._exit(int(status))


def tried(name: str, n: int) -> dict[str, int | float]:
    """Counts for one module."""
    source = (ROOT / "scdiffaug" / f"{name}.py").read_text()
    start = time.monotonic()
    assert outlived(name, ast.parse(source), limit=600), f"the tests of {name} fail as it is"
    limit = 20 + 5 * (time.monotonic() - start)
    total = sum(1 for _ in mutants(source))
    drawn = set(random.Random(0).sample(range(total), min(n, total)))
    survivors = 0
    for place, (words, tree) in enumerate(mutants(source)):
        if place in drawn and outlived(name, tree, limit=limit):
            survivors += 1
            print(f"{name}.py {words}", flush=True)
    return {"mutants": total, "tried": len(drawn), "found": len(drawn) - survivors}


def import_the_rest() -> None:
    """Import what the package needs, so that only the package is imported after each fork."""
    importlib.import_module("scdiffaug.model")
    for name in [name for name in sys.modules if name.partition(".")[0] == "scdiffaug"]:
        del sys.modules[name]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TESTS))
    parser.add_argument("-n", type=int, default=40, help="mutants of each module")
    asked = parser.parse_args()
    import_the_rest()
    counts = {name: tried(name, asked.n) for name in asked.names or TESTS}
    n_tried, n_found = (sum(part[what] for part in counts.values()) for what in ("tried", "found"))
    print(json.dumps({**counts, "found": round(n_found / n_tried, 3)}))
