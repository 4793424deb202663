"""The files of a run: cells, failures, settings, and the lock of the folder."""
