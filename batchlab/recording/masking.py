"""The public form of a config: what is or looks like a secret is written as `***`, wherever a run leaves it.

A secret is what an environment variable gave (`config.hidden` names the keys), and what has a secret's name.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

MASK = "***"
SECRET_WORDS = re.compile(
    r"key|token|secrets?|pass|passw.*|passphrase|pwd|credentials?|auth|authorization|bearer|cookie"
    r"|(api|access|auth|secret|private)(key|token)"
)
# A password may be a number; the others hold numbers that are none: `key_dim: 64`, `max_token: 512`.
PASSWORD_WORDS = re.compile(r"passw.*|passphrase|pwd")
# Letters in one case: HF_TOKEN and apiKey are the same words as hf_token and api_key.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s?#]*@")
_QUERY = re.compile(r"([?&;])([^=&;#\s]+)=([^&;#\s]*)")
_INLINE = re.compile(r"""([\w.-]+)(\s*:\s*)("[^"]*"|'[^']*'|\[[^\]]*\]|(?!//)[^,{}\[\]]+)""")
_NUMBERS = re.compile(r"[-+\d.,eE_\s]*")


def is_secret(key: str) -> bool:
    """Whether one of the words of a dotted key is a word for a secret: `data.api_key`, `HF_TOKEN`, `accessToken`.

    Whole words only, and plurals of key and token are counts: `num_memory_tokens`, `keys`, `monkey` are not.
    """
    return _has_word(key, SECRET_WORDS)


def _has_word(key: str, words: re.Pattern[str]) -> bool:
    return any(words.fullmatch(word.lower()) for word in _WORD.findall(key))


def masked(config: Mapping[str, object]) -> dict[str, object]:
    """A plain copy of `config` that may be shown: every text below a secret key is `***`, URLs lose their user.

    Numbers, booleans and null stay (`use_cls_token: true` is no secret), so does an empty text. Tuples become lists.
    Of the keys in `config["hidden"]` nothing stays.
    """
    hidden = _hidden(config)
    return {str(key): _masked(entry, str(key), hidden) for key, entry in config.items()}


def masked_overrides(overrides: Iterable[str]) -> list[str]:
    """The same for what was typed: `+data.password=x` becomes `+data.password=***`."""
    return [_masked_override(override) for override in overrides]


def concealed(text: str, config: Mapping[str, object]) -> str:
    """`text`, an error's say, without what `config`, unmasked, hides: user code likes to tell what it was given."""
    for value in sorted(_hidden_texts(config, "", _hidden(config)), key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


def masked_text(text: str) -> str:
    """`text` with the user of every URL removed, and the secrets in its query."""
    without_user = _USER_INFO.sub(r"\1", text)
    if "://" not in without_user:
        return without_user
    return _QUERY.sub(lambda found: f"{found[1]}{found[2]}={_shown(found[2], found[3])}", without_user)


def _hidden(config: Mapping[str, object]) -> tuple[str, ...]:
    """The dotted keys that `config` says are hidden."""
    keys = config.get("hidden", ())
    return tuple(str(key) for key in keys) if isinstance(keys, list | tuple) else ()


def _is_hidden(key: str, hidden: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in hidden)


def _hidden_texts(value: Any, key: str, hidden: tuple[str, ...]) -> set[str]:
    """What stands below the hidden keys; what is shorter than four letters is in every text, and no secret."""
    if isinstance(value, Mapping):
        inner = ((f"{key}.{name}" if key else str(name), entry) for name, entry in value.items())
        return set().union(*(_hidden_texts(entry, name, hidden) for name, entry in inner))
    if isinstance(value, list | tuple):
        return set().union(*(_hidden_texts(entry, key, hidden) for entry in value))
    return {str(value)} if _is_hidden(key, hidden) and len(str(value)) >= 4 else set()


def _masked(value: Any, key: str, hidden: tuple[str, ...] = ()) -> Any:
    if isinstance(value, Mapping):
        return {str(inner): _masked(entry, f"{key}.{inner}", hidden) for inner, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(entry, key, hidden) for entry in value]
    if _is_hidden(key, hidden):
        return MASK
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return MASK if _has_word(key, PASSWORD_WORDS) else value
    text = str(value)
    return MASK if text and is_secret(key) else masked_text(text)


def _masked_override(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return masked_text(override)
    shown = _shown(key, value)
    if shown == value and "{" in value:
        shown = _INLINE.sub(lambda found: found[1] + found[2] + _shown(found[1], found[3]), value)
    return key + equals + masked_text(shown)


def _shown(key: str, value: str) -> str:
    """`value`, as it was typed, or the mask; the same answer as for what the config makes of it."""
    if not is_secret(key) or value.strip().lower() in ("", "true", "false", "null"):
        return value
    if _NUMBERS.fullmatch(value) and not _has_word(key, PASSWORD_WORDS):
        return value
    return MASK
