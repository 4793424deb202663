"""Captum both ways; nothing is imported here, so that no framework is needed."""
