"""The doctor: its findings and output formats; it loads no framework in its own process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from diptych.backends.jittor import setup
from diptych.cli.doctor import checks, report
from diptych.weights.find import zoo_names


def test_the_doctors_json_says_what_its_table_says() -> None:
    checks = [report.Check("a", "ok", "1"), report.Check("b", "fail", "2", "fix b")]
    found = json.loads(report.to_json(checks))
    assert found["ok"] is False and set(found) == {"diptych", "ok", "checks"}
    assert found["checks"][1] == {"name": "b", "status": "fail", "detail": "2", "fix": "fix b"}
    table = report.render(checks)
    assert "fix: fix b" in table and table.endswith("not ready: b")
    assert report.healthy(checks[:1]) and not report.healthy(checks)


def test_the_doctor_loads_no_framework_and_gives_a_command_for_each_problem() -> None:
    program = """
import sys
from diptych.cli.doctor import report as doctor
doctor._tried = lambda name, program, fix: doctor.Check(name, "ok", "")
checks = doctor.diagnose()
assert not {"torch", "jittor", "jittor_utils"} & set(sys.modules)
print(doctor.to_json(checks))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    rows = json.loads(done.stdout)["checks"]
    assert {"python", "numpy", "torch", "jittor", "compiler", "onednn", "cuda", "mpi", "mnist"} < {
        row["name"] for row in rows
    }
    assert all(row["fix"] for row in rows if row["status"] != "ok")


def test_a_missing_panel_fails_only_where_both_are_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "_torch", lambda: report._missing("torch"))
    monkeypatch.setattr(report, "_tried", lambda name, *_: report.Check(name, "ok", ""))
    for required, status in (("0", "warn"), ("1", "fail")):
        monkeypatch.setenv("DIPTYCH_REQUIRE_PANELS", required)
        found = {check.name: check.status for check in report.diagnose()}
        assert found["torch"] == status


def test_jittor_fails_with_the_fix_of_the_check_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setup, "jittor_version", lambda: "1.3.11.0")
    monkeypatch.setattr(setup, "numpy_version", lambda: "1.26.4")
    monkeypatch.setattr(setup, "compiler", lambda: None)
    found = report._jittor()
    assert (found.status, found.fix) == ("fail", checks.compiler().fix)
    assert "'compiler'" in found.detail and not found.absent


def test_the_zoo_is_named() -> None:
    said = checks.weights().detail
    assert zoo_names() and all(name in said for name in zoo_names())
