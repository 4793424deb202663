"""The embedded model ``scenes``: its data, its segmenter, its training and its weights.

Nothing is imported here, so that the data set can be used without torch.
"""
