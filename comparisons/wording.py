"""Words for numbers."""


def counted(n: int, what: str) -> str:
    """Return how many there are, in words: ``1 image``, ``2 images``."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
