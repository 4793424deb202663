"""What a run ends in: the table, its files, the figures and the page."""
