"""The options in the help: read from `config/options.py` and from `configs/`, so nothing is written twice."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from batchlab.cli.output import definitions
from batchlab.config import BUDGET_UNITS
from batchlab.config.bounds import allowed
from batchlab.config.commands import COMMANDS, Command
from batchlab.config.goals import WHOLE
from batchlab.config.option_row import Moves, Option
from batchlab.config.options import OPTIONS
from batchlab.config.values import as_override
from batchlab.config_folder import config_folder

HYDRA_IN_WORDS = ("--config-dir", "--hydra-help")  # the help says more about these


@dataclass(frozen=True)
class DescribedOption:
    """One key at the root of a config, described for the help."""

    name: str
    meaning: str
    allowed: str
    moves: Moves
    identity: bool  # whether another value makes another run


def described_options() -> dict[str, DescribedOption]:
    """Every key that a user may write, by name, in the order of the table."""
    described: list[DescribedOption] = []
    for option in OPTIONS.values():
        described.extend(_budget(option) if option.name == "budget" else [_described(option)])
    return {option.name: option for option in described}


def groups() -> dict[str, dict[str, str]]:
    """The config groups: each option with the first comment of its file."""
    found: dict[str, dict[str, str]] = {}
    for folder in sorted(path for path in config_folder().iterdir() if path.is_dir()):
        files = {file.relative_to(folder).with_suffix("").as_posix(): file for file in folder.rglob("*.yaml")}
        found[folder.name] = {name: first_comment(files[name]) for name in sorted(files)}
    return {name: options for name, options in found.items() if options}


def keys_of(group: str, option: str) -> list[tuple[str, str]]:
    """The keys of a group's option, as typed with their values, each with its comment in the file."""
    text = (config_folder() / group / f"{option}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text) or {}
    comments = {line.partition(":")[0]: line.partition(" # ")[2].strip() for line in text.splitlines()}
    return [
        (f"{group}.{key}" + ("" if isinstance(value, dict) else f"={as_override(value)}"), comments.get(key, ""))
        for key, value in values.items()
        if key not in ("_target_", "defaults")
    ]


def first_comment(file: Path) -> str:
    """The description of a config file: its first comment that is not an instruction to Hydra."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").rstrip()
    return ""


def help_text(name: str) -> str:
    """The help of a command that takes options of the configuration."""
    command = COMMANDS[name]
    parts = [f"usage: batchlab {name} {command.takes}" + " [HYDRA OPTIONS]" * bool(command.hydra), command.about]
    if flags := command.described_flags:
        parts.append(f"flags:\n{definitions(flags.items())}")
    parts.append(f"examples:\n{command.examples}")
    parts.append(f"options (`batchlab config` shows their defaults):\n{definitions(option_rows(name))}")
    return "\n\n".join(parts + [_of_hydra(command)] * bool(command.hydra))


def option_rows(command: str) -> list[tuple[str, str]]:
    """For `--help`: each option that the command takes with its meaning and values; groups with their choices."""
    shipped = groups()
    rows: list[tuple[str, str]] = []
    for option in described_options().values():
        if not COMMANDS[command].takes_option(option.name):
            continue
        takes = option.allowed
        if option.name in shipped:
            takes = ", ".join(name for name in shipped[option.name] if name != "own")
            takes += f", or your own by {option.name}._target_" * ("own" in shipped[option.name])
        rows.append((option.name, f"{option.meaning} ({takes})" if takes else option.meaning))
    rows.append(("experiment", f"a file that sets several of these ({', '.join(shipped.get('experiment', {}))})"))
    return rows


def _of_hydra(command: Command) -> str:
    flags = ", ".join(flag.replace("--cfg", "--cfg job") for flag in command.hydra if flag not in HYDRA_IN_WORDS)
    keys = "+key=value for keys of data, model, optimizer and instruments"
    elsewhere = f",\n{keys},\nand hydra/launcher=... to run points elsewhere." if command.for_runs else f" and\n{keys}."
    return (
        "--config-dir DIR adds configs of your own, which take precedence over the shipped ones of the same name.\n"
        f"Hydra's flags may be used: {flags} (--hydra-help describes them);\n"
        f"so may its grammar (range, choice, glob){elsewhere}"
    )


def _described(option: Option) -> DescribedOption:
    meaning = option.meaning
    if option.unit:
        joined = meaning.startswith(("between ", "per "))  # "examples between validations"
        meaning = f"{option.unit} {meaning}" if joined else f"{meaning}, in {option.unit}"
    takes = allowed(option) if option.takes is None else option.takes
    return DescribedOption(option.name, meaning, takes, option.moves, option.is_identity)


def _budget(option: Option) -> list[DescribedOption]:
    """The several keys of a config that belong to the one row of the budget."""
    described = {"default_epochs": (f"{option.meaning} where none of the three is set", "a number above 0")}
    for unit in BUDGET_UNITS:
        others = " and ".join(other for other in BUDGET_UNITS if other != unit)
        kind = "an integer" if unit in WHOLE else "a number"
        described[unit] = (f"{option.meaning}; excludes {others}", f"{kind} above 0, or null")
    return [DescribedOption(key, *described[key], option.moves, option.is_identity) for key in option.keys]


def read_defaults() -> dict[str, object]:
    """The values of `configs/config.yaml`."""
    values: dict[str, object] = yaml.safe_load((config_folder() / "config.yaml").read_text(encoding="utf-8"))
    return values


def default_options() -> dict[str, str]:
    """The option that each group has by default."""
    listed = read_defaults()["defaults"]
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return {str(group): str(option) for entry in entries for group, option in entry.items()}


def blocks() -> list[list[str]]:
    """The options of `configs/config.yaml` in the blocks of that file, which empty lines separate."""
    known = described_options()
    text = (config_folder() / "config.yaml").read_text(encoding="utf-8")
    found = []
    for paragraph in text.split("\n\n"):
        keys = [line.partition(":")[0] for line in paragraph.splitlines()]
        found.append([key for key in keys if key in known])
    return [block for block in found if block]
