"""Settings of an examination."""

from dataclasses import dataclass

from sixfold.core.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(Settings):
    """What is examined."""

    master: str | None = option(
        None, "Spark master to examine: local[N], spark://HOST:PORT, yarn ... (default: no Spark)"
    )
    spark_conf: tuple[str, ...] = option((), "a Spark setting; may be repeated", form="KEY=VALUE")
    workers: int | None = option(
        None, "ranks that a run would have (default: as many as there are slots, up to 8)", ge=1
    )
    data: str | None = option(None, "data set that a run would read")
    out: str | None = option(
        None, "directory below which a run would write; on a cluster all hosts must share it"
    )


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(Settings):
    """Everything that `sixfold doctor` takes."""

    doctor: DoctorOptions = DoctorOptions()

    def cross_problems(self) -> list[str]:
        """Settings that Spark could not read."""
        found = [
            f"--spark-conf {setting!r}: expected key=value"
            for setting in self.doctor.spark_conf
            if "=" not in setting
        ]
        if self.doctor.spark_conf and self.doctor.master is None:
            found.append("--spark-conf: only with --master")
        return found
