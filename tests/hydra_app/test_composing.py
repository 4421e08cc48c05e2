"""A grid's points are what Hydra would compose, one by one, however they are made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, IntegerNode, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from batchlab.config import Request, from_hydra, to_dict
from batchlab.errors import BadRequest, EmptyGrid
from batchlab.hydra_app import composing
from batchlab.hydra_app.composing import Composer, pinned
from batchlab.hydra_app.explaining import translated
from batchlab.hydra_app.plain_overrides import parsed_number, plain_config
from batchlab.hydra_app.plugins import register_plugins

OF_THE_USER = {
    "data/tied.yaml": "_target_: my_net.load\nsize: ${batch_size}\nnoise: 0.1\n",
    "data/nested.yaml": "_target_: my_net.load\ninner: {a: 1, b: {c: [1, 2], d: null}}\nnames: [x, y]\n",
    "experiment/tied.yaml": "# @package _global_\nreference_batch_size: ${batch_size}\n",
}


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composer]:
    """A composer of the shipped configs, and of a folder of the user's."""
    folder = tmp_path_factory.mktemp("configs")
    for name, text in OF_THE_USER.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    register_plugins()
    with hydra.initialize(version_base="1.3", config_path=None):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [f"hydra.searchpath=[file://{folder}]"], run_mode=RunMode.MULTIRUN)
        # The search path of a real sweep's command line, set by --config-dir.
        loader.repository.initialize_sources(_with(loader.config_search_path, folder))
        yield Composer(HydraContext(config_loader=loader, callbacks=Callbacks(master)), master)


def _with(search_path: Any, folder: Path) -> Any:
    search_path.prepend(provider="command-line", path=f"file://{folder}")
    return search_path


def by_hydra_alone(composer: Composer, overrides: Sequence[str]) -> str:
    """What Hydra composes of `overrides` from the start, as text with every type; or what it refuses, in our words."""
    try:
        config = composer.loader.load_configuration("config", list(overrides), run_mode=RunMode.RUN)
        with open_dict(config):
            del config["hydra"]
        return _shown(from_hydra(config))
    except (HydraException, OmegaConfBaseException) as error:
        return str(translated(error))
    except BadRequest as error:
        return str(error)


def _shown(asked: Request) -> str:
    return repr(to_dict(pinned(asked.run), asked.sweep))


def by_us(composer: Composer, overrides: Sequence[str]) -> str:
    try:
        return _shown(composer.request(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        return str(translated(error))
    except BadRequest as error:
        return str(error)


VALUE_WORDS = """
    8 0 -3 007 1_000 1.5 .5 1e-3 1e3 inf nan true False null NULL abc a-b a.b 'quoted' "it's" 'a,b' '' '???' ???
    [1,2] [0.5,0.999] [] [a,'b c'] [null,true] [[1],[2]] [{a:1}] {a:1} {width:64} {b:{c:[3]}} {}
    ${batch_size} '${seed}' ${nothing} ${oc.env:HOME} ${oc.decode:'[1,2]'} a\\ b '\\${seed}' 99999999999999999999 x:y
"""
KEY_WORDS = """
    batch_size accumulate micro_batch_size lr seed warmup schedule device threads epochs steps default_epochs grids
    target target.metric target.value stop_at_target trust retry jobs study runs_dir timeout eval_every precision
    model.width model.dropout model.batch_norm model.new model._target_ data.label_noise data.inner data.inner.a
    data.inner.b.c data.inner.b.c.0 data.inner.b.new data.names data.size optimizer.betas optimizer.momentum
    instruments.health instruments.health._target_ batchsize lr.x nothing.at.all
"""
VALUES, KEYS = VALUE_WORDS.split(), KEY_WORDS.split()
GROUPS = ["model=cnn", "model=own", "optimizer=adamw", "data=tied", "data=nested", "data=synthetic", "experiment=tied"]


@st.composite
def override_sets(draw: st.DrawFn) -> list[str]:
    overrides = draw(st.lists(st.sampled_from(GROUPS), max_size=2, unique_by=lambda o: o.partition("=")[0]))
    for _ in range(draw(st.integers(1, 4))):
        prefix = draw(st.sampled_from(["", "", "", "", "", "", "++", "++", "+", "~"]))
        key, value = draw(st.sampled_from(KEYS)), draw(st.sampled_from(VALUES))
        overrides.append(f"{prefix}{key}={value}")
    return overrides


def by_hydras_laying(composer: Composer, overrides: Sequence[str]) -> str:
    """The values laid by Hydra over the composition of the groups: ten times as quick as composing from the start."""
    groups = tuple(o for o in overrides if o in GROUPS)
    try:
        base = composer.base(groups)
        parsed = composer.parser.parse_overrides([o for o in overrides if o not in GROUPS])
        return _shown(composer.by_hydra(parsed, base))
    except (HydraException, OmegaConfBaseException) as error:
        return str(translated(error))
    except BadRequest as error:
        return str(error)


@settings(max_examples=150)
@given(overrides=override_sets())
def test_any_overrides_come_out_as_hydra_lays_them(composer: Composer, overrides: list[str]) -> None:
    assert by_us(composer, overrides) == by_hydras_laying(composer, overrides)


@pytest.mark.parametrize(
    ("overrides"),
    [
        ["batch_size=8", "model.width=3", "study=x"],
        ["data=tied", "batch_size=16", "seed=2"],
        ["data=nested", "data.inner.b.c=[1,x]", "++data.inner.b.new='a b'", "data.inner.a=null"],
        ["optimizer=adamw", "optimizer.betas=[0.5,0.6]", "model=cnn"],
        ["experiment=tied", "batch_size=64", "lr=1e-3"],
        ["model=own", "++model._target_=my_net.Net", "++model.deep={a:1}", "+model.other=2"],
        ["target={value: 3.0}", "target.metric=val/accuracy"],
        ["lr=${oc.env:LR_HERE,0.5}", "batch_size=${seed}", "seed=5"],
        ["~instruments.health", "trust=[a,b]", "epochs=1.5"],
        ["model.widht=3"],
        ["model.width={a:1}"],
        ["batch_size=???"],
        ["lr.x=3"],
        ["optimizer=adamw", "optimizer.momentum=0.9"],
        ["+batch_size=3"],
        ["model=nope"],
    ],
    ids=" ".join,
)
def test_they_come_out_as_hydra_composes_them_from_the_start(composer: Composer, overrides: list[str]) -> None:
    assert by_us(composer, overrides) == by_hydra_alone(composer, overrides)


@pytest.mark.parametrize(
    "key", ["batch_size", "study", "target", "model.width", "data.inner.a", "data.inner.b.c", "++data.inner.new"]
)
def test_every_kind_of_value_comes_out_as_hydra_lays_it(composer: Composer, key: str) -> None:
    for value in VALUES:
        overrides = ["data=nested", "steps=3", f"{key}={value}", "seed=4"]
        assert by_us(composer, overrides) == by_hydras_laying(composer, overrides), overrides


PLAIN = [
    ["batch_size=8", "lr=0.5", "seed=3"],
    ["model=cnn", "model.width=8", "model.batch_norm=false"],
    ["optimizer=adamw", "optimizer.betas=[0.5,0.6]", "target.value=0.1"],
    ["data=nested", "data.inner.a=null", "data.inner.b.c=[3]", "data.names=['a b']"],
    ["model=own", "++model._target_=my_net.Net", "++model.size=3"],
    ["study='night'", "epochs=2", "trust=[timm]"],
]
NOT_PLAIN = [
    ["batch_size=${seed}", "seed=8"],
    ["lr=${oc.env:LR_HERE,0.5}"],
    ["data=tied"],
    ["experiment=tied", "batch_size=8"],
    ["+model.new=1"],
    ["~target"],
    ["target={value: 3.0}"],
    ["model._target_=???"],
]


@pytest.mark.parametrize("overrides", PLAIN, ids=" ".join)
def test_plain_values_need_no_omegaconf(
    composer: Composer, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the tests above would hold of a short way that nobody takes."""
    expected = by_hydra_alone(composer, overrides)
    composer.config(overrides)  # the base is composed once
    monkeypatch.setattr(Composer, "by_hydra", lambda *_: pytest.fail("took the long way"))
    monkeypatch.setattr(OmegaConf, "to_container", lambda *_, **__: pytest.fail("took the long way"))

    assert _shown(composer.request(overrides)) == expected


@pytest.mark.parametrize("overrides", NOT_PLAIN, ids=" ".join)
def test_what_depends_on_something_is_hydras(
    composer: Composer, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class TakenByHydra(Exception):  # noqa: N818 - no error, a way
        pass

    def by_hydra(*_: object) -> None:
        raise TakenByHydra

    monkeypatch.setattr(Composer, "by_hydra", by_hydra)

    with pytest.raises(TakenByHydra):
        composer.config(overrides)


def test_one_point_leaves_no_trace_in_the_next(composer: Composer) -> None:
    before = _shown(composer.request(["data=nested"]))

    composer.config(["data=nested", "data.inner.b.c=[9]", "++data.inner.new=1", "batch_size=8"])

    assert _shown(composer.request(["data=nested"])) == before


@dataclass
class Schema:
    """A user's, from Hydra's ConfigStore: it takes '8' for 8."""

    size: int = 3


@pytest.mark.parametrize(
    "typed",
    [OmegaConf.structured(Schema), IntegerNode(3), DictConfig({}, element_type=int), ListConfig([], element_type=int)],
    ids=["a dataclass", "a value", "a mapping", "a list"],
)
def test_a_type_keeps_a_config_from_being_plain(typed: Any) -> None:
    assert plain_config(OmegaConf.create({"a": 1, "b": {"c": [1, 2]}})) is not None
    assert plain_config(OmegaConf.create({"a": 1, "b": {"c": typed}})) is None


@given(
    key=st.sampled_from(["seed", "model.width", "a_b.c1", "x"]),
    number=st.one_of(st.integers(-(10**20), 10**20), st.floats(-1e6, 1e6).map(lambda x: f"{x:f}")),
)
def test_a_number_is_read_as_hydras_parser_reads_it(key: str, number: Any) -> None:
    line = f"{key}={number}"

    ours, theirs = parsed_number(line), OverridesParser.create().parse_override(line)

    assert ours is not None
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize(
    "line", ["a=1e3", "a=08", "a=1_0", "a=+1", "a=1.", "a=.5", "a='1'", "+a=1", "a=1,2", "a=x", "a/b=1", "a=", "a=٣"]
)
def test_what_is_no_plain_number_is_the_parsers(line: str) -> None:
    assert parsed_number(line) is None


# Grids


def test_a_grid_is_the_product_in_the_order_of_the_line(composer: Composer) -> None:
    assert list(composer.expanded(["batch_size=8,32", "seed=range(0,2)", "lr=0.1"])) == [
        ["batch_size=8", "seed=0", "lr=0.1"],
        ["batch_size=8", "seed=1", "lr=0.1"],
        ["batch_size=32", "seed=0", "lr=0.1"],
        ["batch_size=32", "seed=1", "lr=0.1"],
    ]


def test_of_two_overrides_of_one_key_the_later_holds(composer: Composer) -> None:
    assert list(composer.expanded(["seed=range(0,200000)", "batch_size=8", "seed=1"])) == [["seed=1", "batch_size=8"]]


def test_a_grid_that_no_machine_holds_is_refused_before_it_is_made(composer: Composer) -> None:
    with pytest.raises(BadRequest, match="more than 100,000 points"):
        list(composer.expanded(["batch_size=range(1,100000000)", "seed=range(0,1000000000)"]))
    with pytest.raises(BadRequest, match="more than 100,000 points"):
        list(composer.expanded(["lr=range(0.0,1.0,1e-300)"]))


def test_the_largest_grid_is_allowed(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composing, "MOST_POINTS", 6)

    assert len(list(composer.expanded(["batch_size=8,32", "seed=0,1,2"]))) == 6
    with pytest.raises(BadRequest, match="more than 6 points"):
        list(composer.expanded(["seed=range(0,7)"]))


@pytest.mark.parametrize("empty", ["range(0)", "range(5,5)", "range(1,9,-1)", "shuffle(range(0,0))"])
def test_an_empty_grid_is_no_grid(composer: Composer, empty: str) -> None:
    with pytest.raises(EmptyGrid, match="gives no values"):
        list(composer.expanded(["batch_size=8,32", f"seed={empty}"]))
