"""What the help says of the knobs: read from `config.py` and from `configs/`, never written twice."""

from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from batchlab.config import BUDGET_UNITS, NO_KNOBS, RunConfig
from batchlab.config_folder import config_folder
from batchlab.knob_values import allowed

# Where the type alone does not tell what to write.
TAKES = {
    "device": "",  # its meaning lists them
    "noise_scale": "a number above 0; a completed run that measured it, runs/STUDY/RUN; null for the other rules",
    "target": "target.metric=val/<metric> target.value=NUMBER; a null value is no target",
    "trust": "a list, such as [timm,transformers]",
    "retry": "a list, such as [failed,timeout]; --retry failed,timeout",
    "force": "true or false; --force",
    "dry_run": "true or false; --dry-run",
    "published": "a list, in an experiment's file",
    "study": "a folder's name; null is <data>-<model>",
    "runs_dir": "a path",
}


@dataclass(frozen=True)
class Knob:
    """One key at the root of a config, in words."""

    name: str
    meaning: str
    allowed: str
    identity: bool  # whether another value makes another run


def knobs() -> dict[str, Knob]:
    """Every key a user may write, by name, in the order of `config.py`."""
    described: list[Knob] = []
    for entry in fields(RunConfig):
        if entry.name == "budget":
            described.extend(_budget(entry))
        elif entry.name not in NO_KNOBS:
            described.append(_knob(entry))
    described.append(
        Knob("grids", "lists of sweep overrides; the study is their union", "a list, in an experiment's file", False)
    )
    return {knob.name: knob for knob in described}


def groups() -> dict[str, dict[str, str]]:
    """The config groups: each option with the first comment of its file."""
    found: dict[str, dict[str, str]] = {}
    for folder in sorted(path for path in config_folder().iterdir() if path.is_dir()):
        files = {file.relative_to(folder).with_suffix("").as_posix(): file for file in folder.rglob("*.yaml")}
        found[folder.name] = {name: first_comment(files[name]) for name in sorted(files)}
    return {name: options for name, options in found.items() if options}


def keys_of(group: str, option: str) -> list[tuple[str, str]]:
    """The keys of a group's option, as they would be typed with their values, each with its comment in the file."""
    import yaml

    text = (config_folder() / group / f"{option}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text) or {}
    comments = {line.partition(":")[0]: line.partition(" # ")[2].strip() for line in text.splitlines()}
    return [
        (f"{group}.{key}" + ("" if isinstance(value, dict) else f"={written(value)}"), comments.get(key, ""))
        for key, value in values.items()
        if key not in ("_target_", "defaults")
    ]


def written(value: object) -> str:
    """A default as it would be typed."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {written(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def first_comment(file: Path) -> str:
    """What a config file says of itself: its first line that is a comment and no instruction to Hydra."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").rstrip()
    return ""


def knob_rows() -> list[tuple[str, str]]:
    """For `--help`: each knob with its meaning and what it takes; groups with their options."""
    options = groups()
    rows: list[tuple[str, str]] = []
    for knob in knobs().values():
        takes = knob.allowed
        if knob.name in options:
            shipped = ", ".join(option for option in options[knob.name] if option != "own")
            takes = f"{shipped}, or your own by {knob.name}._target_" if "own" in options[knob.name] else shipped
        rows.append((knob.name, f"{knob.meaning} ({takes})" if takes else knob.meaning))
    rows.append(("experiment", f"a file that sets several of these ({', '.join(options.get('experiment', {}))})"))
    return rows


def _knob(entry: Field[Any]) -> Knob:
    name, unit, meaning = entry.name, entry.metadata.get("unit"), str(entry.metadata["meaning"])
    if unit:
        joined = meaning.startswith(("between ", "per "))  # "examples between validations"
        meaning = f"{unit} {meaning}" if joined else f"{meaning}, in {unit}"
    return Knob(name, meaning, TAKES.get(name, allowed(entry)), bool(entry.metadata["identity"]))


def _budget(entry: Field[Any]) -> list[Knob]:
    """One field of `RunConfig`, several keys of a config."""
    identity = bool(entry.metadata["identity"])
    meaning = str(entry.metadata["meaning"])
    others = {unit: [other for other in BUDGET_UNITS if other != unit] for unit in BUDGET_UNITS}
    return [
        *(
            Knob(
                unit,
                f"{meaning}; excludes {' and '.join(others[unit])}",
                f"{'a number' if unit == 'epochs' else 'an integer'} above 0, or null",
                identity,
            )
            for unit in BUDGET_UNITS
        ),
        Knob("default_epochs", f"{meaning} where none of the three is set", "a number above 0", identity),
    ]
