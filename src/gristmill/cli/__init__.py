"""The command line: one lazy file per verb, nothing imported before it is asked for."""

from gristmill.cli._main import main

__all__ = ["main"]
