"""Labels and logits of real classifiers on real data: mistakes of every kind, and pairs that nothing is wrong with."""

from guide.corpus import mistakes_inputs, mistakes_labels, mistakes_models, mistakes_outcomes
from guide.corpus.cases import TORCH, Case, Pair, fits, mended
from guide.corpus.clean import cases as clean_cases

MISTAKES = tuple(
    case
    for module in (mistakes_inputs, mistakes_labels, mistakes_outcomes, mistakes_models)
    for case in vars(module).values()
    if isinstance(case, Case)
)
CLEAN = tuple(clean_cases())

__all__ = ["CLEAN", "MISTAKES", "TORCH", "Case", "Pair", "fits", "mended"]
