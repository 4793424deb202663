"""The names of COCO's and Pascal VOC's classes, as their papers list them."""

#: The 80 things of Microsoft COCO (Lin et al., arXiv 1405.0312), in the order of their numbers.
THINGS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

#: The 20 things of Pascal VOC (Everingham et al. 2010), numbered from 1 in its segmentations, by
#: the words that a sentence has for them.
VOC = (
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv monitor",
)  # fmt: skip

#: The 53 kinds of stuff of COCO's panoptic segmentations (Kirillov et al., arXiv 1801.00868).
STUFF = (
    "banner", "blanket", "bridge", "cardboard", "counter", "curtain", "door-stuff", "floor-wood",
    "flower", "fruit", "gravel", "house", "light", "mirror-stuff", "net", "pillow", "platform",
    "playingfield", "railroad", "river", "road", "roof", "sand", "sea", "shelf", "snow", "stairs",
    "tent", "towel", "wall-brick", "wall-stone", "wall-tile", "wall-wood", "water-other",
    "window-blind", "window-other", "tree-merged", "fence-merged", "ceiling-merged",
    "sky-other-merged", "cabinet-merged", "table-merged", "floor-other-merged", "pavement-merged",
    "mountain-merged", "grass-merged", "dirt-merged", "paper-merged", "food-other-merged",
    "building-other-merged", "rock-merged", "wall-other-merged", "rug-merged",
)  # fmt: skip
#: What COCO appends to such names, which no caption does.
_SUFFIXES = ("-merged", "-other", "-stuff")


def plain(name: str) -> str:
    """A class's name as a caption would have it: ``sky-other-merged`` is sky."""
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def is_stuff(name: str) -> bool:
    """Return whether a class is one of COCO's kinds of stuff."""
    return plain(name.lower()) in _PLAIN_STUFF


_PLAIN_STUFF = frozenset(plain(name) for name in STUFF)
