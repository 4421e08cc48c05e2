"""The values of a config that came from environment variables: they may be secrets, whatever their keys are called."""

import re
from collections.abc import Collection, Mapping

from batchlab.config.values import leaves

_FROM_ENVIRONMENT = re.compile(r"\benv\s*:")  # ${oc.env:TOKEN}, also inside another resolver


def hidden_keys(
    as_written: Mapping[str, object], resolved: Mapping[str, object], *, within: Collection[str]
) -> tuple[str, ...]:
    """The dotted keys whose value came from an environment variable, directly or through another key, in order.

    Only those `within` these root keys: other options are numbers, choices, and names of folders. The elements
    of a list have the list's key. A `_target_` is the name of code, so it is not a secret.
    """
    written = {key: text for key, text in leaves(as_written) if isinstance(text, str) and "${" in text}
    from_environment = {key for key, text in written.items() if _FROM_ENVIRONMENT.search(text)}
    if not from_environment:
        return ()
    values: dict[str, set[str]] = {}
    for key, leaf in leaves(resolved):
        values.setdefault(key, set()).add(str(leaf))
    secrets = {text for key in values if _lies_below(key, from_environment) for text in values[key] if text}
    given = {
        key
        for key, texts in values.items()
        if _lies_below(key, written) and any(secret in text for text in texts for secret in secrets)
    }
    return tuple(key for key in sorted(given) if key.partition(".")[0] in within and not key.endswith("._target_"))


def _lies_below(key: str, others: Collection[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in others)
