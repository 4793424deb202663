"""The results of a run: the table, its files, the figures and the page."""
