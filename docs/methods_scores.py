"""The tables of ``docs/methods``, from what comparisons and the sanity study wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wordlight.attribution import registry
from wordlight.attribution.attributor import TextImageAttributor

CONTROLS = ("uniform", "center", "random", "guidance-norm", "token-rank")


@dataclass(frozen=True)
class Scores:
    """What was measured.

    Attributes:
        summary: of the comparison of most methods, with the rows that others add.
        settings: of that comparison.
        sanity: what the sanity study found, by method.
    """

    summary: dict[str, Any]
    settings: dict[str, Any]
    sanity: dict[str, Any]

    @classmethod
    def read(cls, comparisons: Sequence[Path], sanity: Path) -> Scores:
        """From the folders; the first comparison is the one of most methods.

        The others' rows say how many images they are of, where that differs. Raises ValueError
        for comparisons of other steps or another seed.
        """
        first, *others = [json.loads((f / "summary.json").read_text("utf-8")) for f in comparisons]
        known = {row["method"] for row in first["headline"]}
        for other in others:
            if any(other[key] != first[key] for key in ("seed", "steps")):
                raise ValueError("the comparisons are of another seed or steps than the first one")
            of = "" if other["n"] == first["n"] else f", {other['n']} images"
            rows = [row for row in other["headline"] if row["method"] not in known]
            first["headline"] += [{**row, "of": of} for row in rows]
            known |= {row["method"] for row in rows}
        settings = json.loads((comparisons[0] / "settings.json").read_text("utf-8"))
        cascades = json.loads((sanity / "sanity.json").read_text("utf-8"))
        return cls(first, settings, {cascade["method"]: cascade for cascade in cascades})

    def row(self, method: str, metric: str) -> dict[str, Any] | None:
        """A method's estimate of a metric, where the comparison has it."""
        for row in self.summary["headline"]:
            if (row["method"], row["metric"]) == (method, metric) and row["mean"] is not None:
                found: dict[str, Any] = row
                return found
        return None

    def estimate(self, method: str, metric: str) -> str:
        """The same in words, with its interval."""
        row = self.row(method, metric)
        if row is None:
            return "not measured"
        of = row.get("of", "")
        if row["low"] is None:
            return f"{row['mean']:.3f}{of}"
        return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]{of}"

    def effort(self, method: str) -> str:
        """With how much effort a method's row was made, where that is an option of it."""
        option = registry.available()[method].effort
        chosen = self.settings["settings"]["methods"].get(method, {})
        return f", {option} {chosen[option]}" if option in chosen else ""

    def made_with(self, method: str) -> str:
        """A sentence on the effort, and on what such maps fail to share out; "" for neither."""
        missed = self.row(method, "completeness-error")
        parts = [f"Made with{effort[1:]}." if (effort := self.effort(method)) else ""]
        if missed is not None:
            parts.append(
                f"Completeness error: the maps together miss or exceed {missed['mean']:.1%} of the "
                "push."
            )
        return " ".join(part for part in parts if part)

    def cost(self, method: str) -> str:
        """Forward-equivalents an image."""
        row = self.row(method, "forward-equivalents")
        return "not measured" if row is None else f"{row['mean']:.0f}"

    def survival(self, method: str) -> str:
        """What is left of a method's maps under a random model; marked where that is all."""
        if method not in self.sanity:
            return "not measured"
        last = self.sanity[method]["similarity"][-1]["mean"]
        mark = (
            "" if self.sanity[method]["depends_on_model"] else " **does not depend on the model**"
        )
        return ("not measured" if last is None else f"{last:+.2f}") + mark

    def of_a_method(self, name: str) -> str:
        """The numbers on a method's own page."""
        cells = [
            self.estimate(name, "miou@best"),
            self.estimate(f"shuffled-word.{name}", "miou@best"),
            self.estimate(name, "pointing-game"),
            self.estimate(name, "ap"),
            self.cost(name),
            self.survival(name),
        ]
        return (
            "| mIoU@best, shape nouns [95 %] | the same of `shuffled-word` | pointing game | AP "
            "| forward-equivalents an image | rank correlation with a random model's map |\n"
            "|---|---|---|---|---|---|\n"
            f"| {' | '.join(cells)} |" + (f"\n\n{said}" if (said := self.made_with(name)) else "")
        )

    def of_all(self, methods: dict[str, type[TextImageAttributor]]) -> str:
        """All methods, best first, and how the numbers came about."""

        def rank(name: str) -> float:
            row = self.row(name, "miou@best")
            return -row["mean"] if row else 1.0

        lines = [
            "| method | family | signed | mIoU@best, shape nouns [95 %] | of another object's word "
            "| forward-eq. | under a random model |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in sorted(methods, key=rank):
            kind = methods[name]
            cells = [
                f"[`{name}`]({name}.md){self.effort(name)}",
                kind.family,
                "yes" if kind.signed else "no",
                self.estimate(name, "miou@best"),
                self.estimate(f"shuffled-word.{name}", "miou@best"),
                self.cost(name),
                self.survival(name),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, "", self._how()])

    def of_controls(self) -> str:
        """What methods must beat."""
        lines = [
            "| control | mIoU@best, shape nouns [95 %] | pointing game | AP "
            "| rank correlation with a random model's map |",
            "|---|---|---|---|---|",
        ]
        for name in CONTROLS:
            scores = [self.estimate(name, m) for m in ("miou@best", "pointing-game", "ap")]
            lines.append(f"| `{name}` | {' | '.join(scores)} | {self.survival(name)} |")
        return "\n".join(lines)

    def _how(self) -> str:
        norm = self.row("guidance-norm", "miou@best")
        words = max(cascade["similarity"][-1]["n"] for cascade in self.sanity.values())
        budget = self.settings["settings"].get("budget")
        effort = (
            f" and with as much effort as {budget} forward-equivalents an image pay for, which "
            "stands behind its name (but `regeneration`, whose cost is what it is)"
            if budget
            else " and with the effort that stands behind its name"
        )
        return (
            f"{self.summary['n']} test images of `scenes`, {norm['n'] if norm else 0} headline "
            "words (shape nouns in images of two or more objects); thresholds chosen on images of "
            f"their own; every method at the same {len(self.summary['steps'])} steps{effort}. The "
            f"control `guidance-norm` has {self.estimate('guidance-norm', 'miou@best')}, `center` "
            f"{self.estimate('center', 'miou@best')}, the ceiling is "
            f"{self.summary['ceiling']['miou@best']:.3f}. Which of these differ is told by the "
            "[leaderboard](../leaderboard.md), whose table of most images this is. The last column "
            "is the rank correlation of a method's maps with those of the same denoiser with "
            f"random weights, over {words} words of two images, at one step and with the methods' "
            "default options (`study sanity -n 2 --steps 1`); the picture shows it stage by stage."
        )
