"""Settings of tracking."""

from dataclasses import dataclass

from sixfold.core.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class TrackingConfig(Settings):
    """Who is told of the training while it runs; no result depends on it."""

    track: tuple[str, ...] = option(
        (),
        "send settings, metrics and results to trackers: tensorboard, mlflow; several separated by "
        "commas",
        form="NAME[,NAME]",
    )

    @property
    def names(self) -> list[str]:
        """The trackers, each once."""
        words = [word.strip() for text in self.track for word in text.split(",")]
        return list(dict.fromkeys(word for word in words if word))

    def cross_problems(self) -> list[str]:
        """Trackers that nobody knows, or whose package is missing."""
        from sixfold.training.tracking.registry import tracker_problems

        return tracker_problems(self.names)
