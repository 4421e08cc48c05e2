"""Masks secrets: a value that is or looks like a secret is `***` in what batchlab writes of a run.

What the user's own code prints goes to `worker.log` unchanged.
A secret is a value from an environment variable (`config.hidden` lists the keys), or one whose key looks like a secret.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from batchlab.config.values import leaves

MASK = "***"
SECRET_WORDS = re.compile(
    r"key|token|secrets?|pass|passw.*|passphrase|pwd|credentials?|auth|authorization|bearer|cookie|jwt"
    r"|(api|access|auth|secret|private)(key|token)"
)
# A password may be a number; other keys hold numbers that are not secrets: `key_dim: 64`, `max_token: 512`.
PASSWORD_WORDS = re.compile(r"passw.*|passphrase|pwd")
# Splits a key into words: HF_TOKEN and apiKey have the same words as hf_token and api_key.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# Each takes time proportional to the text: repetitions are bounded, possessive, or end at what begins the next match.
_USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^/\s?#]*@")
_QUERY = re.compile(r"([?&;#])([^=?&;#\s]++)=([^&;#\s]*)")
_SIGNATURE = re.compile(r"sig(nature)?")  # of a signed URL: X-Amz-Signature, Azure's sig
_BEARER = re.compile(r"\b(authorization\s*:\s*\w++\s++|bearer\s++)(?=[^\s\d]*+\d)[\w.~+/=-]{8,}", re.IGNORECASE)
# A key in a mapping or in JSON text, and its value if it is a number, boolean or null.
_INLINE = re.compile(r"(?<![\w./-])([\w./-]++)['\"]?\s*+:\s*+((?:[-+\d.eE_]++|true|false|null)(?=\s*+[,}]))?")
_NUMBERS = re.compile(r"[-+\d.,eE_\s]*")


def masked(config: Mapping[str, object]) -> dict[str, object]:
    """A plain copy of `config` that may be shown: text below a secret key is `***`, user names in URLs are removed.

    Numbers, booleans, null and empty text are kept (`use_cls_token: true` is not a secret). Tuples become lists.
    Everything below the keys in `config["hidden"]` is masked.
    """
    return dict(_masked(config, "", _hidden(config)))


def masked_overrides(overrides: Iterable[str]) -> list[str]:
    """Masks command-line overrides: `+data.password=x` becomes `+data.password=***`."""
    return [_masked_override(override) for override in overrides]


def concealed(text: str, config: Mapping[str, object]) -> str:
    """`text` without the values of the unmasked `config` that are masked: errors of user code may quote arguments."""
    is_hidden = _hidden(config)
    secrets = {str(value) for key, value in leaves(config) if value is not None and _is_masked(key, value, is_hidden)}
    secrets |= {line for value in secrets for line in value.splitlines()}
    forms = {
        form for value in secrets for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1], quote(value, ""))
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK) if len(form) >= 4 else text  # shorter values occur everywhere
    return _masked_text(text)


def _is_secret(key: str, words: re.Pattern[str] = SECRET_WORDS) -> bool:
    """Whether a dotted key contains a word for a secret: `data.api_key`, `HF_TOKEN`, `accessToken`.

    Only whole words, and plurals of key and token are counts: `num_memory_tokens`, `keys`, `monkey` are not secret.
    """
    return any(words.fullmatch(word.lower()) for word in _WORD.findall(key))


def _hidden(config: Mapping[str, object]) -> Callable[[str], bool]:
    """A function that says whether a dotted key is one of the hidden keys of `config`, or below one."""
    keys = config.get("hidden", ())
    names = tuple(f"{key}." for key in keys) if isinstance(keys, list | tuple) else ()
    return lambda key: f"{key}.".startswith(names)


def _masked(value: Any, key: str, is_hidden: Callable[[str], bool]) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _masked(entry, f"{key}.{name}".lstrip("."), is_hidden) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(entry, key, is_hidden) for entry in value]
    if _is_masked(key, value, is_hidden):
        return MASK
    return value if value is None or isinstance(value, bool | int | float) else _masked_text(str(value))


def _is_masked(key: str, value: object, is_hidden: Callable[[str], bool]) -> bool:
    if is_hidden(key):
        return True
    if value is None or isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return _is_secret(key, PASSWORD_WORDS)
    return bool(str(value)) and _is_secret(key)


def _masked_override(override: str) -> str:
    key, equals, value = override.partition("=")
    shown = _shown(key, value)
    if "{" in value and any(_shown(name, plain or "text") == MASK for name, plain in _INLINE.findall(value)):
        shown = MASK
    return key + equals + _masked_text(shown) if equals else _masked_text(key)


def _masked_text(text: str) -> str:
    """`text` without bearer tokens, and without the user names, secrets and signatures in its URLs."""
    text = _BEARER.sub(rf"\1{MASK}", text)
    return _QUERY.sub(_masked_parameter, _USER_INFO.sub(r"\1", text)) if "://" in text else text


def _masked_parameter(found: re.Match[str]) -> str:
    before, name, value = found.groups()
    return f"{before}{name}={MASK if _is_secret(name, _SIGNATURE) else _shown(name, value)}"


def _shown(key: str, value: str) -> str:
    """`value` as it was typed, or the mask; consistent with the masking of the parsed config."""
    plain = value.strip().lower() in ("", "true", "false", "null")
    is_number = _NUMBERS.fullmatch(value) is not None
    return value if plain or not _is_secret(key, PASSWORD_WORDS if is_number else SECRET_WORDS) else MASK
