"""Find wrong pairs of model output and loss in Python source."""

from withlogits.lint.files import SOURCE_CODES, NotChecked, Report, SourceFinding, check, check_files, corrected

__all__ = ["SOURCE_CODES", "NotChecked", "Report", "SourceFinding", "check", "check_files", "corrected"]
