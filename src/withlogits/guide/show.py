"""How findings read: in a terminal, in a notebook, in an error."""

from __future__ import annotations

import html
import textwrap

from withlogits.guide.findings import Diagnosis, Finding, Recommendation

WIDTH = 100
COLOURS = {"error": "#b3261e", "warning": "#8a5a00", "note": "#1f5fa8"}


def recommendation_text(r: Recommendation) -> str:
    lines = [f"{r.loss}: {r.why}", f"  labels  {r.form}"]
    if r.transform:
        lines.append(f"  first   {r.transform}")
    return "\n".join([*lines, f"  write   {r.call}"])


def finding_text(found: Finding) -> str:
    lines = [f"{found.severity:<7} {found.code}  {found.title}"]
    lines += textwrap.wrap(found.evidence, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join([*lines, f"        fix: {found.fix}"])


def diagnosis_text(d: Diagnosis) -> str:
    parts = [f"{d.subject}; loss: {d.loss}"]
    parts += [finding_text(found) for found in d.findings]
    if not d.findings:
        parts.append("nothing found that would be wrong")
    if d.recommendation is not None:
        parts.append("recommended  " + recommendation_text(d.recommendation).replace("\n", "\n" + " " * 13))
    return "\n".join(parts)


def errors_text(d: Diagnosis) -> str:
    """One paragraph an error: what, the evidence, the fix."""
    return "\n".join(f"{found.code}, {found.title}: {found.evidence}; fix: {found.fix}" for found in d.errors)


def diagnosis_html(d: Diagnosis) -> str:
    rows = "".join(
        f'<tr><td style="color:{COLOURS[found.severity]};font-weight:600">{found.severity}</td>'
        f"<td>{found.code}</td><td style='text-align:left'><b>{html.escape(found.title)}</b><br>"
        f"{html.escape(found.evidence)}<br><code>{html.escape(found.fix)}</code></td></tr>"
        for found in d.findings
    )
    if not rows:
        rows = "<tr><td>nothing found that would be wrong</td></tr>"
    advice = ""
    if d.recommendation is not None:
        r = d.recommendation
        advice = f"<p>{html.escape(r.loss)}: {html.escape(r.why)}<br><code>{html.escape(r.call)}</code></p>"
    return f"<p>{html.escape(d.subject)}; loss: {d.loss}</p><table>{rows}</table>{advice}"
