"""Metrics: how well maps find masks, and whether they say what the model does.

Each is a small class: ``update`` with what one image gave, ``merge`` with another one's state,
``compute`` for the mean with its interval. Each score is a function too, in the module of its
subject.
"""
