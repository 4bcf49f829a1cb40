"""The version of the package, which any module may read."""

__version__ = "0.1.0"
