"""The guide finds the mistakes that people make, what it advises helps, and it is silent where nothing is wrong."""

from __future__ import annotations

from collections import Counter

import pytest

from guide.corpus import CLEAN, MISTAKES, TORCH, Case, fits, mended
from withlogits.guide import diagnosing
from withlogits.guide.findings import CODES


def named(cases: tuple[Case, ...]) -> list[object]:
    without = pytest.mark.skip(reason="PyTorch is not installed: pip install torch")
    return [
        pytest.param(case, id=f"{case.code} {case.name}".strip(), marks=[without] if case.torch and not TORCH else [])
        for case in cases
    ]


def test_the_corpus_is_large_enough() -> None:
    often = Counter(case.code for case in MISTAKES)
    assert set(often) == {code for code in CODES if not code.startswith("WL5")}  # which are of source code
    assert min(often.values()) >= 5
    assert len(CLEAN) >= 300
    assert len({case.name for case in CLEAN}) == len(CLEAN)
    assert len({case.name for case in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize("case", named(MISTAKES))
def test_a_mistake_is_found_and_its_fix_helps(case: Case) -> None:
    pair = case.pair()
    diagnosis = pair.diagnosis()
    assert case.code in diagnosis.codes, str(diagnosis)
    finding = next(found for found in diagnosis if found.code == case.code)
    assert fits(finding.severity, case.severity), str(diagnosis)
    after = mended(pair, finding.fix).diagnosis()
    assert case.code not in after.codes, f"{finding.fix}\n{after}"
    new = {found.code for found in after.errors} - {found.code for found in diagnosis.errors}
    assert not new, f"{finding.fix}\n{after}"


@pytest.mark.parametrize("case", named(CLEAN))
def test_a_clean_pair_stays_clean(case: Case) -> None:
    diagnosis = case.pair().diagnosis()
    assert not diagnosis, str(diagnosis)


@pytest.mark.parametrize("case", named((*MISTAKES, *CLEAN[::5])))
def test_block_by_block_the_same_is_found(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = case.pair()
    whole = pair.diagnosis()
    monkeypatch.setattr(diagnosing, "ROWS", 50)
    in_blocks = pair.diagnosis()
    assert in_blocks.codes == whole.codes, f"{whole}\n{in_blocks}"
