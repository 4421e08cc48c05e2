"""Turns Hydra's errors into one line for the user."""

import re
from collections.abc import Iterator, Sequence

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from batchlab.config import option_names
from batchlab.errors import BadRequest, did_you_mean


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
    options = [option for option in listed if option != "own"]
    near = did_you_mean(name, options) or ": use one of " + ", ".join(options)
    return BadRequest(f"unknown {group or 'config'} '{name}'{near}")


def _unknown_key(error: OmegaConfBaseException) -> BadRequest:
    key, parent = str(error.full_key), error.parent_node
    *groups, last = key.split(".")
    if groups and last in option_names():
        return BadRequest(f"unknown key '{key}': did you mean '{last}'? It is an option at the root, {last}=...")
    inside = [str(known) for known in parent] if isinstance(parent, DictConfig) else []
    near = did_you_mean(last, inside if groups else option_names())
    near = near.replace("'", f"'{'.'.join((*groups, ''))}", 1)  # the whole key, as it is typed
    if not near and groups and inside:
        taken = ", ".join(name for name in inside if name != "_target_")
        near = f": {'.'.join(groups)} takes {taken or 'nothing'}; use +{key}=... to add a key"
    return BadRequest(f"unknown key '{key}'{near or ': `batchlab config` lists the keys'}")
