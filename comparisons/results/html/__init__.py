"""The report of a run: one HTML page that needs nothing beside it."""

from wordlight.comparisons.results.html.page import write_report

__all__ = ["write_report"]
