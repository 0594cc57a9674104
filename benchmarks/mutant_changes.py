"""Mutants of a module: the small changes of meaning that can be put into it, one at a time.

The operators are those of cosmic-ray, without the ones that hardly ever compile to something that runs (an addition becomes a
subtraction, not a shift), and two of our own: a statement that is left out, and ``in`` for ``not in``. What a change leaves as it
was for Python, as in an annotation, is no mutant, nor is what a dataclass forbids those who misuse it (``frozen=False``).
"""

from __future__ import annotations

import ast
import difflib
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider
from parso.python import tree

_PARTNERS = (
    *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "Mod_Mul", "Pow_Mul"),
    *("BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitOr", "LShift_RShift", "RShift_LShift"),
)
_COMPARED = (
    *("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"),
    *("Is_IsNot", "IsNot_Is"),
)
_OTHERS = (
    *("ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_USub"),
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer", "ZeroIterationForLoop"),
)


class LeaveOutStatement:
    """Replaces a call, an assignment to something that lives on, a deletion or a raise by nothing."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Yield where a node can be changed, as operators of cosmic-ray do."""
        if isinstance(node, tree.PythonNode) and node.type == "simple_stmt" and _has_effect(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Return the changed node."""
        first = node.children[0]
        node.children[0] = tree.Name("pass", first.start_pos, prefix=first.get_first_leaf().prefix)
        return node


def _has_effect(statement: Any) -> bool:
    if statement.type in {"del_stmt", "raise_stmt"}:
        return True
    if statement.type == "atom_expr":
        return statement.children[-1].type == "trailer" and statement.children[-1].children[0] == "("
    if statement.type != "expr_stmt" or statement.children[1].type == "annassign":
        return False
    return statement.children[1].get_code().strip() != "=" or "." in statement.children[0].get_code()


class TurnMembership:
    """Exchanges ``in`` and ``not in``."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Yield where a node can be changed, as operators of cosmic-ray do."""
        parent = getattr(node, "parent", None)
        alone = isinstance(node, tree.Keyword) and node.value == "in" and getattr(parent, "type", "") == "comparison"
        if alone or (node.type == "comp_op" and node.children[-1].value == "in"):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Return the changed node."""
        turned = "in" if node.type == "comp_op" else "not in"
        return tree.Keyword(turned, node.start_pos, prefix=node.get_first_leaf().prefix)


def operators() -> dict[str, Any]:
    """Return the operators by name; a version of cosmic-ray that lacks one is an error."""
    core: Any = OperatorProvider()  # it has no more than names and items
    names = [f"ReplaceBinaryOperator_{pair}" for pair in _PARTNERS]
    names += [f"ReplaceComparisonOperator_{pair}" for pair in _COMPARED]
    ours = {"LeaveOutStatement": LeaveOutStatement(), "TurnMembership": TurnMembership()}
    return {**{name: core[name]() for name in (*names, *_OTHERS)}, **ours}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One changed module."""

    module: str
    """Its path in the project."""
    line: int
    operator: str
    occurrence: int
    """Which of the places of the operator in the module it is."""
    source: str
    """The whole module, changed."""
    before: str
    """The lines that are changed, without what stands around them."""
    after: str

    @property
    def diff(self) -> str:
        """The change in two lines or a few."""
        return f"{self.module}:{self.line} {self.operator}\n- {self.before}\n+ {self.after}"


def mutants(root: Path, modules: Sequence[str], count: int, draw: random.Random) -> Iterator[Mutant]:
    """Draw mutants.

    Each place in the code is as likely as any other, however many operators fit it.

    Args:
        root: Of the project.
        modules: Paths below it.
        count: How many at most.
        draw: What they are drawn with: equal for equal seeds.
    """
    applied = operators()
    sources = {module: (root / module).read_text(encoding="utf-8") for module in modules}
    places: dict[tuple[str, tuple[int, int]], list[tuple[str, int]]] = {}
    for module, source in sources.items():
        nodes = list(ast_nodes(parso.parse(source)))
        for name, operator in applied.items():
            starts = (start for node in nodes for start, _ in operator.mutation_positions(node))
            for occurrence, start in enumerate(starts):
                places.setdefault((module, start), []).append((name, occurrence))
    order = sorted(places)
    draw.shuffle(order)
    found = 0
    for module, start in order:
        if found == count:
            return
        name, occurrence = draw.choice(places[module, start])
        mutant = _mutant(sources[module], applied[name], module, start[0], name, occurrence)
        if mutant is not None:
            found += 1
            yield mutant


def again(root: Path, module: str, line: int, operator: str, occurrence: int) -> Mutant | None:
    """Return a mutant that was drawn before; see :class:`Mutant`. None where there is none any more."""
    source = (root / module).read_text(encoding="utf-8")
    return _mutant(source, operators()[operator], module, line, operator, occurrence)


def _mutant(source: str, applied: Any, module: str, line: int, operator: str, occurrence: int) -> Mutant | None:
    """Return None for a change that means nothing."""
    changed = mutate_code(source, applied, occurrence)
    if changed is None or not _means_something_else(source, changed):
        return None
    before, after = _changed_lines(source, changed)
    return Mutant(
        module=module,
        line=line,
        operator=operator,
        occurrence=occurrence,
        source=changed,
        before=before,
        after=after,
    )


def _means_something_else(before: str, after: str) -> bool:
    try:
        return ast.dump(_bare(before)) != ast.dump(_bare(after))
    except SyntaxError:
        return False


def _bare(source: str) -> ast.AST:
    """Return the tree of a module without annotations, which are strings to Python here, and without guards of dataclasses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        whole = ast.parse(source)
    for node in ast.walk(whole):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dataclass":
            node.keywords = [one for one in node.keywords if one.arg not in {"frozen", "slots", "kw_only"}]
    return whole


def _changed_lines(before: str, after: str) -> tuple[str, str]:
    old, new = before.splitlines(), after.splitlines()
    parts = [
        code for code in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if code[0] != "equal"
    ]
    first, last = parts[0], parts[-1]
    return (
        " ".join(line.strip() for line in old[first[1] : last[2]]),
        " ".join(line.strip() for line in new[first[3] : last[4]]),
    )
