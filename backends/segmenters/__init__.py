"""Supervised segmenters: masks of words, from models that were trained on masks."""
