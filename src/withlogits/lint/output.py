"""What was found in files as JSON, and as SARIF 2.1.0, which code hosts show beside the lines."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from withlogits.guide.findings import MISTAKES
from withlogits.lint.files import SOURCE_CODES, Report, SourceFinding
from withlogits.version import __version__

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def as_json(report: Report) -> dict[str, Any]:
    """Return the report in dictionaries and lists."""
    return {
        "findings": [found.to_dict() for found in report.findings],
        "files": report.files,
        "fixed": report.fixed,
        "not_checked": [{"path": path, "why": str(why)} for path, why in report.not_checked],
    }


def as_sarif(report: Report) -> dict[str, Any]:
    """Return the report as one run of SARIF."""
    rules = [
        {"id": code, "shortDescription": {"text": title}, "defaultConfiguration": {"level": severity}}
        for code, (severity, title) in MISTAKES.items()
        if code in SOURCE_CODES
    ]
    failures = [
        {"level": "warning" if why.harmless else "error", "message": {"text": f"{path} is not checked: {why}"}}
        for path, why in report.not_checked
    ]
    run = {
        "tool": {"driver": {"name": "withlogits", "version": __version__, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": all(why.harmless for _, why in report.not_checked),
                "toolExecutionNotifications": failures,
            }
        ],
        "results": [_result(found) for found in report.findings],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(found: SourceFinding) -> dict[str, Any]:
    finding = found.finding
    uri = quote(os.fsencode(PurePath(found.path).as_posix()), safe="/.:")  # the bytes of a name need not be UTF-8
    region = {
        "startLine": found.line,
        "startColumn": found.column,
        "endLine": found.end_line,
        "endColumn": found.end_column,
    }
    return {
        "ruleId": finding.code,
        "ruleIndex": SOURCE_CODES.index(finding.code),
        "level": finding.severity,
        "message": {"text": f"{finding.title}: {finding.evidence}; fix: {finding.fix}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}],
    }
