"""A backend's source in common words: different names for the same thing are unified.

Both backends are rewritten in PyTorch's words, so that a comparison sees the program, not the
dialect. A rule belongs here only if the two forms mean the same everywhere; anything that only
holds in one place belongs in the mirror check's list of intended differences.
"""

from __future__ import annotations

import ast

NAMES = {
    "jt": "torch",  # import jittor as jt
    "JittorBackend": "TorchBackend",
}
ATTRIBUTES = {
    "execute": "forward",  # a module's computation
    "stop_grad": "detach",
}
DOTTED = {
    "torch.Var": "torch.Tensor",
    "torch.autograd.grad": "torch.grad",
    "torch.inference_mode": "torch.no_grad",  # both only omit the graph
}
TEXTS = {"jt.Var": "torch.Tensor", "jittor": "torch", "Jittor": "PyTorch"}
WRAPPER = "nn.Parameter"  # Jittor treats every array in a module as a parameter


def in_torch_words(tree: ast.Module) -> ast.Module:
    """Remove docstrings and rename in place; line numbers are kept. Returns `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            _drop_docstring(node)
    renamed: ast.Module = _Renamer().visit(tree)
    return renamed


def _drop_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> None:
    if ast.get_docstring(node, clean=False) is not None:
        first = node.body.pop(0)
        if not node.body and not isinstance(node, ast.Module):
            node.body.append(ast.copy_location(ast.Pass(), first))


def _module(name: str) -> str:
    """`jittor.x` as `torch.x`, `diptych.backends.jittor.x` as `diptych.backends.torch.x`."""
    return ".".join(TEXTS.get(part, part) for part in name.split("."))


class _Renamer(ast.NodeTransformer):
    def visit_Import(self, node: ast.Import) -> ast.AST:
        for alias in node.names:
            alias.name = _module(alias.name)
            if alias.asname == "jt":
                alias.asname = None
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        node.module = _module(node.module or "")
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = ATTRIBUTES.get(node.name, node.name)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = NAMES.get(node.name, node.name)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = NAMES.get(node.id, node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        node.attr = ATTRIBUTES.get(node.attr, node.attr)
        self.generic_visit(node)
        common = DOTTED.get(ast.unparse(node))
        return node if common is None else ast.parse(common, mode="eval").body

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        wraps = ast.unparse(node.func) == WRAPPER and len(node.args) == 1 and not node.keywords
        return node.args[0] if wraps else node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str):
            for word, common in TEXTS.items():
                node.value = node.value.replace(word, common)
        return node
