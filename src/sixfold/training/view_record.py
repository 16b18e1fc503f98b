"""What a launcher learns of the views of a training's group."""

from collections.abc import Mapping
from typing import Any

from sixfold.core.events import OnEvent


class ViewRecord:
    """What rank 0 tells of each view of its group, for the result; passes all else on."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self.judge: OnEvent | None = None  # settles what ranks disagree about
        self._found: list[Mapping[str, Any]] = []

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take in an event of a rank."""
        if event["kind"] == "view":
            self._found.append({name: value for name, value in event.items() if name != "kind"})
        elif event["kind"] == "audit":
            if self.judge is not None:
                self.judge(event)
        else:
            self._on_event(event)

    def figures(self) -> dict[str, Any]:
        """For `result.json`; what came before the first view belongs to an earlier launch."""
        later = self._found[1:]
        none = {"lost_steps": 0, "stall_s": 0.0}
        return {
            "views": [
                {"number": number, **view, **(none if number == 1 else {})}
                for number, view in enumerate(self._found, 1)
            ],
            "lost_steps": sum(view["lost_steps"] for view in later),
            "stall_s": round(sum(view["stall_s"] for view in later), 6),
        }
