"""Losses of arrays that lie in files and may be larger than memory."""

from withlogits.evaluation.files import ArrayFile, BadFile, NoSuchArray, open_array
from withlogits.evaluation.losses import Choice, Summary, choose_loss, evaluate

__all__ = ["ArrayFile", "BadFile", "Choice", "NoSuchArray", "Summary", "choose_loss", "evaluate", "open_array"]
