"""Secrets are masked, and what only sounds like one is not."""

import pytest

from batchlab.recording.masking import concealed, masked, masked_overrides

SECRET = "hunter2-sk"


SECRET_KEYS = """
    api_key hf_token HF_TOKEN token key password passwd db_password secret client_secret credentials accessToken APIKey
    apiKey apikey access-key auth passphrase user.pwd data.api_key wandb_api_key2 authtoken hfToken dbPassword
"""


@pytest.mark.parametrize("key", SECRET_KEYS.split())
def test_a_text_below_a_secret_key_is_masked_wherever_it_lies(key):
    nested = {"deep": [{key: SECRET, "list": [{key: {"inner": [SECRET]}}]}]}

    assert SECRET not in str(masked({key: SECRET})) + str(masked(nested))
    assert masked({key: SECRET}) == {key: "***"}
    assert masked_overrides([f"{key}={SECRET}", f"+data.{key}=[{SECRET},b]", f"data={{{key}:{SECRET},n:3}}"]) == [
        f"{key}=***",
        f"+data.{key}=***",
        "data=***",  # the whole mapping
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_cls_token", True),
        ("num_memory_tokens", 4),
        ("max_token", 512),
        ("key_dim", 64),
        ("token_rate", 0.5),
        ("api_key", None),
        ("api_key", ""),
        ("tokens", "many"),
        ("keys", "a,b"),
        ("monkey", "see"),
        ("hockey", "stick"),
        ("tokenizer", "gpt2"),
        ("author", "Ada"),
        ("compass", "north"),
        ("bypass", "yes"),
        ("keypoints", "17"),
        ("lr", 0.05),
    ],
)
def test_what_only_sounds_like_a_secret_stays(key, value):
    assert masked({key: value}) == {key: value}
    typed = {None: "null", True: "true"}.get(value, value)
    assert masked_overrides([f"{key}={typed}"]) == [f"{key}={typed}"]


def test_a_password_of_digits_is_masked_too():
    assert masked({"password": 1234}) == {"password": "***"}
    assert masked_overrides(["data.password=1234"]) == ["data.password=***"]


def test_a_bearer_token_is_masked_in_any_text():
    given = {"data": {"header": "Authorization: Bearer ab1.cd2-ef3_gh4"}, "model": {"name": "bearer instruments"}}

    assert masked(given) == given | {"data": {"header": "Authorization: Bearer ***"}}
    assert masked_overrides(["data.header=Bearer eyJhbGciOi.9"]) == ["data.header=Bearer ***"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ada:pw@host/x?n=1", "https://host/x?n=1"),
        ("postgres://ada:p@w@host:5/db", "postgres://host:5/db"),
        ("see https://ada@host/x and s3://k:v@b/y", "see https://host/x and s3://b/y"),
        ("https://host/x?token=abc&n=1&api_key=d#part", "https://host/x?token=***&n=1&api_key=***#part"),
        (
            "https://b.host/x?X-Amz-Expires=9&X-Amz-Credential=A1/s3&X-Amz-Signature=c0ffee",
            "https://b.host/x?X-Amz-Expires=9&X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        ("https://b.host/x?sv=2024&sig=c0%2Ffee%3D&sp=r", "https://b.host/x?sv=2024&sig=***&sp=r"),
        ("https://host/x?design=round&signal=5", "https://host/x?design=round&signal=5"),
        ("https://host/@ada/x", "https://host/@ada/x"),
        ("ada@example.org", "ada@example.org"),
    ],
)
def test_a_url_loses_its_user_and_the_secrets_in_its_query(url, shown):
    assert masked({"data": {"url": url}}) == {"data": {"url": shown}}
    assert masked_overrides([f"data.url={url}"]) == [f"data.url={shown}"]


def test_masking_twice_is_masking_once_and_leaves_the_given_alone():
    given = {"data": {"api_key": SECRET, "url": "https://a:b@c/?key=d", "sizes": (1, 2)}}

    once = masked(given)

    assert masked(once) == once
    assert given["data"]["api_key"] == SECRET
    assert once["data"]["sizes"] == [1, 2]


@pytest.mark.parametrize(
    "override", ["batch_size=8,32,256", "~data.x", "model=mlp", "lr=choice(0.1,0.2)", "+a.b={c:d}"]
)
def test_an_override_without_a_secret_is_not_touched(override):
    assert masked_overrides([override]) == [override]


@pytest.mark.parametrize(
    "value",
    [
        "{auth:{user:u,pw:S3CRET}}",
        "{a:{b:[{api_key:{x:S3CRET}}]}}",
        r"{token:'a\'S3CRET'}",
        "{token:'a,S3CRET}'}",
        r"{token:a\,S3CRET}",
        "{token://S3CRET}",
        "{secret/x:S3CRET}",
        """'{"api_key": "S3CRET"}'""",
        "${oc.decode:'{token: S3CRET}'}",
    ],
)
def test_a_mapping_with_a_secret_is_masked_whole_in_an_override(value):
    assert masked_overrides([f"++model.x={value}"]) == ["++model.x=***"]


@pytest.mark.parametrize("value", ["{key_dim:64,use_token: true}", "{keys:[a,b],sizes:{x:1}}", "{url:https://host/x}"])
def test_a_mapping_without_a_secret_is_shown(value):
    assert masked_overrides([f"model.x={value}"]) == [f"model.x={value}"]


CONFIG = {
    "hidden": ["model.z"],
    "model": {
        "password": "hunter2secret",
        "z": "a\nline two\"'\\c",
        "url": "plain",
        "width": 1234,
        "pin": {"pwd": 9876},
    },
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("refused hunter2secret", "refused ***"),
        (f"refused {CONFIG['model']}", None),
        ("refused line two\"'\\c", "refused ***"),
        ("at https://host/?q=a%0Aline%20two%22%27%5Cc", "at https://host/?q=***"),
        ("pin 9876 of width 1234", "pin *** of width 1234"),
        ("no such thing: https://u:p@host/x?sig=abcd1", "no such thing: https://host/x?sig=***"),
        ("header Bearer abcdef0123456789", "header Bearer ***"),
    ],
)
def test_an_error_shows_nothing_that_the_config_masks(text, shown):
    found = concealed(text, CONFIG)

    assert not any(secret in found for secret in ("hunter2", "line two", "9876", "u:p", "abcd1", "abcdef"))
    assert shown is None or found == shown


@pytest.mark.parametrize("unit", ["y", "?", "a?b", "x://", "bearer ", "{a:", "#k=", "-sig", "é"])
def test_a_long_text_is_masked_in_time_proportional_to_its_length(unit):
    """A quadratic pattern would take minutes here."""
    text = unit * (400_000 // len(unit))

    assert masked({"x": text}) == {"x": text}
    assert masked_overrides([f"x={{{text}}}"]) == [f"x={{{text}}}"]
