"""The backends mirror each other, and the mirror check notices when they do not."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import mirror
from tools.mirror import INTENDED, ONE_SIDED, PACKAGE, Intended, compare, units
from tools.mirror_words import in_torch_words

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def panels(tmp_path: Path) -> tuple[Path, Path]:
    """A copy of both panels' folders, to be edited."""
    names = ("torch", "jittor")
    torch, jittor = (Path(shutil.copytree(PACKAGE / n, tmp_path / n)) for n in names)
    return torch, jittor


def edit(path: Path, old: str, new: str) -> int:
    """Replace the first `old` in a file; gives its line."""
    text = path.read_text()
    assert old in text, f"{path.name} has no {old!r}"
    path.write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + 1


def test_the_panels_are_in_step() -> None:
    assert compare(PACKAGE / "torch", PACKAGE / "jittor") == []


def test_every_difference_has_its_reason_and_is_listed_once() -> None:
    assert all(len(entry.reason) > 10 for entry in INTENDED)
    assert all(len(reason) > 10 for reason in ONE_SIDED.values())
    places = [(entry.file, entry.where) for entry in INTENDED]
    assert len(set(places)) == len(places)


# Planted drifts


@pytest.mark.parametrize(
    "file, where, old, new, shown",
    [
        (
            "unet.py",
            "ResnetBlock.branch",
            "self.conv1(self.norm1(x))",
            "self.conv1(x)",
            "conv1(x)",
        ),
        ("unet.py", "Downsample.__init__", "2, pad=(0, 1)", "2, pad=(1, 1)", "pad=(1, 1)"),
        ("learner.py", "Learner.loss_of", "error = wanted - ", "error = x0 - ", "error = x0 - "),
        ("learner.py", "Learner.divisor", 'loss == "mean"', 'loss == "sum"', "loss == 'sum'"),
        ("learner.py", "Learner.update", "self.count += 1", "self.count += 2", "self.count += 2"),
        ("collective.py", "module", "BUCKET = 2**23", "BUCKET = 2**22", "BUCKET = 2 ** 22"),
        ("arrays.py", "draw_masks", "if not plan.dropout:", "if plan.dropout:", "if plan.dropout:"),
        (
            "backend.py",
            "TorchBackend.numpy",
            "return read(values)",
            "return values",
            "return values",
        ),
    ],
)
@pytest.mark.parametrize("side", [0, 1], ids=["torch", "jittor"])
def test_a_planted_drift_is_reported_with_file_line_and_both_sides(
    panels: tuple[Path, Path], side: int, file: str, where: str, old: str, new: str, shown: str
) -> None:
    line = edit(panels[side] / file, old, new)
    (fault,) = compare(*panels)
    assert fault.startswith(f"{file}, {where}: ")
    (mine,) = [row for row in fault.splitlines() if shown in row]
    assert mine.startswith(f"  {panels[side].name}/{file}:{line}: ")
    assert f"  {panels[1 - side].name}/{file}:" in fault


def test_a_statement_that_one_panel_lacks(panels: tuple[Path, Path]) -> None:
    statement = "        self.norm1 = GroupNorm(block.in_ch, silu=True)\n"
    line = edit(panels[1] / "unet.py", statement, statement)
    edit(panels[0] / "unet.py", statement, "")
    (fault,) = compare(*panels)
    head, row = fault.splitlines()
    assert head == "unet.py, ResnetBlock.__init__: 0 and 1 statements differ, and it is not listed"
    assert row.startswith(f"  jittor/unet.py:{line}: ") and row.endswith(statement.strip())


def test_a_function_that_one_panel_lacks(panels: tuple[Path, Path]) -> None:
    with (panels[1] / "arrays.py").open("a") as file:
        file.write("\n\ndef extra(x: jt.Var) -> jt.Var:\n    return x\n")
    (fault,) = compare(*panels)
    assert "arrays.py, extra: 0 and 2 statements differ" in fault and "x: torch.Tensor" in fault


def test_methods_in_another_order(panels: tuple[Path, Path]) -> None:
    path = panels[0] / "unet.py"
    tree = ast.parse(path.read_text())
    classes = [i for i, node in enumerate(tree.body) if isinstance(node, ast.ClassDef)]
    a, b = classes[:2]
    tree.body[a], tree.body[b] = tree.body[b], tree.body[a]
    path.write_text(ast.unparse(tree))
    (fault,) = compare(*panels)
    assert fault.startswith("unet.py: the order differs: ")


def test_a_signature_is_mirrored_even_where_the_body_is_free(panels: tuple[Path, Path]) -> None:
    edit(panels[1] / "layers.py", "def upsample(x: jt.Var)", "def upsample(x: jt.Var, by: int = 2)")
    (fault,) = compare(*panels)
    assert "layers.py, upsample: 2 and 2 statements differ" in fault
    assert "meant are all but the signature" in fault


def test_one_more_difference_in_a_listed_function(panels: tuple[Path, Path]) -> None:
    edit(panels[0] / "arrays.py", "check_weights(plan, weights or {},", "check_weights(plan, {},")
    (fault,) = compare(*panels)
    (entry,) = [e for e in INTENDED if (e.file, e.where) == ("arrays.py", "build")]
    assert f"meant are {entry.differing} ({entry.reason})" in fault


# The list itself


def test_a_listed_difference_that_is_gone(panels: tuple[Path, Path]) -> None:
    gone = Intended("unet.py", "AttnBlock.forward", "once they differed", (1, 1))
    lost = Intended("unet.py", "No.such", "once they differed")
    nowhere = Intended("none.py", "f", "once there was a file")
    assert compare(*panels, intended=[*INTENDED, gone, lost, nowhere]) == [
        "unet.py, AttnBlock.forward: is listed (once they differed), but does not differ",
        "unet.py, No.such: is listed (once they differed), but does not differ",
        "none.py, f: is listed, but there is no such pair",
    ]


def test_every_entry_of_the_list_is_needed_and_no_other() -> None:
    found = compare(PACKAGE / "torch", PACKAGE / "jittor", intended=[])
    assert all("is not listed" in fault for fault in found)
    places = sorted(fault.partition(": ")[0] for fault in found)
    assert places == sorted(f"{entry.file}, {entry.where}" for entry in INTENDED)


def test_files_without_a_mirror(panels: tuple[Path, Path]) -> None:
    torch, jittor = panels
    (torch / "extra.py").write_text("")
    (jittor / "setup.py").rename(torch / "setup.py")
    (jittor / "cuda.py").unlink()
    found = compare(torch, jittor)
    assert f"{torch / 'extra.py'}: stands in one panel only; mirror it, or list it" in found[0]
    assert [fault.partition(":")[0] for fault in found[1:]] == ["cuda.py"]


def test_a_file_listed_as_one_sided_that_has_a_mirror(panels: tuple[Path, Path]) -> None:
    (panels[0] / "quiet.py").write_text((panels[1] / "quiet.py").read_text())
    (fault,) = compare(*panels)
    assert fault.startswith(f"quiet.py: is listed as one-sided ({ONE_SIDED['quiet.py']}), but")


# What counts as the same


def common(source: str) -> str:
    return ast.unparse(in_torch_words(ast.parse(source)))


@pytest.mark.parametrize(
    "jittor, torch",
    [
        ("import jittor as jt", "import torch"),
        ("from jittor import nn", "from torch import nn"),
        (
            "from diptych.backends.jittor.arrays import put",
            "from diptych.backends.torch.arrays import put",
        ),
        ("def execute(self, x: jt.Var) -> jt.Var: return x",
         "def forward(self, x: torch.Tensor) -> torch.Tensor: return x"),
        ("self.net.execute(x)", "self.net.forward(x)"),
        ("class JittorBackend: name = 'jittor'", "class TorchBackend: name = 'torch'"),
        ("y = jt.grad(loss, [x.stop_grad()])", "y = torch.autograd.grad(loss, [x.detach()])"),
        ("w = jt.zeros((2,))", "w = nn.Parameter(torch.zeros((2,)))"),
        ("f(f'Jittor finds {x}')", "f(f'PyTorch finds {x}')"),
        ("Masks = Iterator['jt.Var']", "Masks = Iterator['torch.Tensor']"),
        ("def f():\n    'One text.'\n    return 1", "def f():\n    'Another.'\n    return 1"),
        ("def f():\n    'One text.'", "def f():\n    pass"),
        ("x = 1  # one reason", "x = 1  # another"),
    ],
)  # fmt: skip
def test_other_names_for_the_same_are_the_same(jittor: str, torch: str) -> None:
    assert common(jittor) == common(torch)


def test_what_is_not_the_same_stays_different() -> None:
    assert common("x.stop_grad()") != common("x")
    assert common("nn.Parameter(w, False)") != common("w")
    assert common("'text'\n'code'") != common("'text'")


def test_statements_are_found_where_they_stand() -> None:
    source = (
        "import b\nimport a\nX = 1\n\n\n@d\nclass C(B):\n    y: int = 2\n\n    def f(self):\n"
        "        if self:\n            return 1\n        elif x:\n            pass\n"
        "        else:\n            try:\n                g()\n            finally:\n"
        "                h()\n"
    )
    found = {
        where: [(line.number, line.text) for line in lines]
        for where, lines in units(source).items()
    }
    assert found["imports"] == [(2, "import a"), (1, "import b")]
    assert found["module"] == [(3, "X = 1")]
    assert found["C"] == [(6, "@d"), (7, "class C(B):"), (8, "y: int = 2")]
    assert [text for _, text in found["C.f"]] == [
        "def f(self):",
        "    if self:",
        "        return 1",
        "    orelse:",
        "        if x:",
        "            pass",
        "        orelse:",
        "            try:",
        "                g()",
        "            finalbody:",
        "                h()",
    ]
    assert [number for number, _ in found["C.f"]] == [10, 11, 12, 13, 13, 14, 16, 16, 17, 19, 19]


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.mirror"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "") and "mirror each other" in done.stdout
    monkeypatch.setattr(mirror, "compare", lambda *_: ["a drift", "another"])
    assert mirror.main() == 1
    assert capsys.readouterr().out == "a drift\nanother\n"
