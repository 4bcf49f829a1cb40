"""What the right loss is worth, seen on real digits: the command `withlogits demo`."""

from withlogits.demo.story import run

__all__ = ["run"]
