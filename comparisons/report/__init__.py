"""The report of a run: one HTML page that needs nothing beside it."""

from wordlight.comparisons.report.page import write_report

__all__ = ["write_report"]
