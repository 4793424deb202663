"""The nouns of ``things``: which picture each has, its plural, its COCO class, and look-alikes."""

from __future__ import annotations

from dataclasses import dataclass

#: How each noun is drawn, in the order of the sheet's columns. The last style is held out.
STYLES = ("noto", "flat", "fluent", "3d")
HELD_OUT_STYLE = "3d"
TRAINED_STYLES = tuple(style for style in STYLES if style != HELD_OUT_STYLE)


@dataclass(frozen=True)
class Noun:
    """A noun that can be asked for.

    ``icon`` is the picture's name in the packages that the sheet was rendered from; ``coco`` the
    COCO class, or None; ``tinted`` says that the thing can have any colour, so that prompts may ask
    for one.
    """

    name: str
    icon: str
    plural: str
    coco: str | None = None
    tinted: bool = False

    @property
    def is_pair(self) -> bool:
        """True if one of it is a plural: skis, scissors."""
        return self.plural == self.name and self.name.endswith("s")


def _read(table: str) -> dict[str, Noun]:
    nouns = {}
    for line in table.strip().splitlines():
        name, icon, plural, coco, tinted = (cell.strip() for cell in line.split("|"))
        nouns[name] = Noun(
            name,
            icon or name.replace(" ", "-"),
            plural or name + "s",
            {"=": name, "": None}.get(coco, coco),
            tinted == "tinted",
        )
    return nouns


#: By name, in the order of the sheet's rows.
NOUNS = _read(
    """
    person        | person-standing          | people        | =           |
    bicycle       |                          |               | =           | tinted
    car           | automobile               |               | =           | tinted
    motorcycle    |                          |               | =           | tinted
    airplane      |                          |               | =           |
    bus           |                          | buses         | =           | tinted
    train         |                          |               | =           | tinted
    truck         | delivery-truck           |               | =           | tinted
    boat          | sailboat                 |               | =           |
    traffic light | vertical-traffic-light   |               | =           |
    stop sign     |                          |               | =           |
    bird          |                          |               | =           | tinted
    cat           | cat-face                 |               | =           |
    dog           | dog-face                 |               | =           |
    horse         |                          |               | =           |
    sheep         | ewe                      | sheep         | =           |
    cow           |                          |               | =           |
    elephant      |                          |               | =           |
    bear          |                          |               | =           |
    zebra         |                          |               | =           |
    giraffe       |                          |               | =           |
    backpack      |                          |               | =           | tinted
    umbrella      |                          |               | =           | tinted
    handbag       |                          |               | =           | tinted
    tie           | necktie                  |               | =           | tinted
    suitcase      | luggage                  |               | =           | tinted
    frisbee       | flying-disc              |               | =           | tinted
    skis          |                          | skis          | =           |
    ball          | soccer-ball              |               | sports ball |
    kite          |                          |               | =           |
    skateboard    |                          |               | =           | tinted
    tennis racket | tennis                   |               | =           | tinted
    bottle        | bottle-with-popping-cork |               | =           |
    wine glass    |                          | wine glasses  | =           |
    cup           | cup-with-straw           |               | =           | tinted
    knife         | kitchen-knife            | knives        | =           |
    spoon         |                          |               | =           |
    bowl          | bowl-with-spoon          |               | =           | tinted
    banana        |                          |               | =           |
    apple         | red-apple                |               | =           |
    sandwich      |                          | sandwiches    | =           |
    orange        | tangerine                |               | =           |
    broccoli      |                          | broccoli      | =           |
    carrot        |                          |               | =           |
    hot dog       |                          |               | =           |
    pizza         |                          |               | =           |
    donut         | doughnut                 |               | =           |
    cake          | shortcake                |               | =           |
    chair         |                          |               | =           | tinted
    couch         | couch-and-lamp           | couches       | =           |
    potted plant  |                          |               | =           |
    bed           |                          |               | =           |
    toilet        |                          |               | =           |
    tv            | television               |               | =           |
    laptop        |                          |               | =           |
    mouse         | computer-mouse           | mice          | =           | tinted
    keyboard      |                          |               | =           |
    cell phone    | mobile-phone             |               | =           |
    book          | closed-book              |               | =           | tinted
    clock         | alarm-clock              |               | =           | tinted
    vase          | amphora                  |               | =           | tinted
    scissors      |                          | scissors      | =           |
    teddy bear    |                          |               | =           |
    toothbrush    |                          | toothbrushes  | =           |
    wolf          |                          | wolves        |             |
    fox           |                          | foxes         |             |
    tiger         | tiger-face               |               |             |
    lion          |                          |               |             |
    donkey        |                          |               |             |
    ox            |                          | oxen          |             |
    goat          |                          |               |             |
    panda         |                          |               |             |
    duck          |                          |               |             |
    taxi          |                          |               |             |
    minibus       |                          | minibuses     |             | tinted
    tomato        |                          | tomatoes      |             |
    lemon         |                          |               |             |
    bagel         |                          |               |             |
    basketball    |                          |               |             |
    scooter       | motor-scooter            |               |             | tinted
    balloon       |                          |               |             | tinted
    """
)

#: Nouns whose pictures are easily taken for each other: telling their words apart is the question.
LOOK_ALIKES = (
    frozenset({"dog", "wolf", "fox", "bear"}),
    frozenset({"cat", "tiger", "lion"}),
    frozenset({"horse", "donkey", "zebra"}),
    frozenset({"cow", "ox", "goat", "sheep"}),
    frozenset({"bear", "panda", "teddy bear"}),
    frozenset({"bird", "duck"}),
    frozenset({"car", "taxi"}),
    frozenset({"bus", "minibus", "truck"}),
    frozenset({"motorcycle", "scooter"}),
    frozenset({"apple", "tomato"}),
    frozenset({"orange", "lemon", "basketball"}),
    frozenset({"donut", "bagel"}),
    frozenset({"ball", "basketball"}),
    frozenset({"backpack", "suitcase", "handbag"}),
    frozenset({"laptop", "tv"}),
)


def look_alike(first: str, second: str) -> bool:
    """Return True where two different nouns are easily taken for each other."""
    return first != second and any({first, second} <= family for family in LOOK_ALIKES)
