"""Turns Hydra's errors into one line for the user."""

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence

import yaml
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from batchlab.config import option_names
from batchlab.config.options import GROUPS
from batchlab.config.synonyms import SYNONYMS, meant
from batchlab.config_folder import config_folder
from batchlab.errors import BadRequest, did_you_mean

SETS = (*GROUPS, "instruments")  # of keys that are the arguments of a class or a function


def translated(error: BaseException) -> BadRequest:
    """The first of an error and its causes that helps a user, in batchlab's own wording where it has one."""
    chain = list(_causes(error))
    for link in chain:
        if isinstance(link, BadRequest):
            return link
        if isinstance(link, OverrideParseException):
            return unreadable(str(link.override))
        if isinstance(link, MissingConfigException) and link.missing_cfg_file and link.options is not None:
            return _unknown_option(link, link.missing_cfg_file, link.options)
        if isinstance(link, MissingConfigException) and link.missing_cfg_file:
            return BadRequest(f"unknown config '{link.missing_cfg_file}': `batchlab config` lists the configs")
        if isinstance(link, OmegaConfBaseException) and link.full_key and "not in struct" in str(link):
            return _unknown_key(link)
        if added := re.search(r"Either remove \+ prefix: '([^=]*)=", str(link)):
            return BadRequest(f"+{added[1]}=... is invalid: {added[1]} is already there; write {added[1]}=...")
    return BadRequest(" ".join(str(chain[-1] if str(chain[-1]) else error).split()))


def unreadable(override: str) -> BadRequest:
    """The message for an override that Hydra's grammar does not accept."""
    key, equals, value = override.partition("=")
    if not equals and re.fullmatch(r"[\w.]+", key):
        value = f"write {key}=..." if key.partition(".")[0] in option_names() else "`batchlab config` lists the options"
        instead = f"it has no value; {value}"
    elif equals and not key.strip():
        instead = "it has no key; write key=value"
    elif re.search(r",\s*(,|$)|^\s*,", value):
        instead = "a comma must be between two values, as in 8,32"
    elif ";" in value:
        instead = "separate values by commas, as in 8,32"
    elif value.startswith("~"):
        instead = "'~' is not expanded here; write out the whole path"
    else:
        instead = (
            "write key=value or key=value,value,... and quote values with spaces, commas or brackets, as in "
            "\"model.name='a,b'\""
        )
    return BadRequest(f"cannot read '{override}': {instead}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        yield link
        seen.append(link)
        link = link.__cause__


def _unknown_option(error: BaseException, path: str, listed: Sequence[str]) -> BadRequest:
    listing = re.search(r"Available options in '([^']+)':", str(error))
    group = listing[1] if listing else path.rpartition("/")[0]
    name = path.removeprefix(f"{group}/")
    options = [option for option in dict.fromkeys((*listed, *_shipped(group))) if option != "own"]
    inner = [option for option in options if "/" in option]
    # `keskar` or `literature/keskar` for literature/keskar_f1.
    begun = [o for o in inner if name and (o.startswith(name) or o.rpartition("/")[2].startswith(name))]
    near = f": did you mean '{begun[0]}'?" if len(begun) == 1 else "" if begun else did_you_mean(name, options)
    return BadRequest(f"unknown {group or 'config'} '{name}'{near or ': use one of ' + ', '.join(begun or options)}")


def _unknown_key(error: OmegaConfBaseException) -> BadRequest:
    key, parent = str(error.full_key), error.parent_node
    *groups, last = key.split(".")
    inside = [str(known) for known in parent if known != "_target_"] if isinstance(parent, DictConfig) else []
    if not groups:
        near = meant(last) or _in_a_group(last, parent) or ": `batchlab config` lists the keys"
        return BadRequest(f"unknown key '{key}'{near}")
    within = ".".join(groups)
    target = str(parent.get("_target_", "")) if isinstance(parent, DictConfig) else ""
    own = target != "" and groups[0] in SETS and not target.startswith(("batchlab.", "torch."))
    others = [] if own else [name for name, keys in _shipped(within).items() if last in keys]
    if not others and (option := SYNONYMS.get(last, last)) in option_names():
        return BadRequest(f"unknown key '{key}': write {option}=..., without '{within}.'")
    if not others and (near := did_you_mean(last, inside)):
        return BadRequest(f"unknown key '{key}'" + near.replace("'", f"'{within}.", 1))
    takes = f"{_chosen(within, target, inside)} takes {', '.join(inside) or 'no keys'}"
    if own:
        takes += f"; use +{key}=... to add a key"
    elif others := others or _similar(within, last):
        takes += f"; {within}={others[0]} has {_similar_key(within, others[0], last)}"
    elif within == "instruments":
        takes += f"; write +{key}._target_=my_file.Name for an instrument of your own"
    return BadRequest(f"unknown key '{key}': {takes}")


def _in_a_group(last: str, root: object) -> str:
    """The key of a chosen group that has this name, as it is typed."""
    if isinstance(root, DictConfig):
        for group in GROUPS:
            if isinstance(root.get(group), DictConfig) and last in root[group]:
                return f": did you mean '{group}.{last}'?"
    return ""


def _chosen(within: str, target: str, inside: Sequence[str]) -> str:
    """`optimizer=sgd`, where one shipped file has this target and these keys; else the name of the group."""
    found = [name for name, keys in _shipped(within).items() if keys.get("_target_") == target and {*inside} <= {*keys}]
    return f"{within}={found[0]}" if len(found) == 1 else within


def _similar(within: str, key: str) -> list[str]:
    """The shipped options of a group that have a key like this one."""
    return [name for name in _shipped(within) if _similar_key(within, name, key)]


def _similar_key(within: str, name: str, key: str) -> str:
    near = difflib.get_close_matches(
        key, [known for known in _shipped(within)[name] if known not in ("_target_", "defaults")], n=1
    )
    return near[0] if near else ""


@functools.cache
def _shipped(group: str) -> Mapping[str, Mapping[str, object]]:
    """The shipped files of a group by name, with their keys; none for another node."""
    folder = config_folder() / group
    if not re.fullmatch(r"\w+", group) or not folder.is_dir():
        return {}
    files = {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}
    return {name: yaml.safe_load(file.read_text(encoding="utf-8")) or {} for name, file in files.items()}
