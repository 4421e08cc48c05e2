"""Counter-based random numbers: as published, uniform, independent, and the same in any order."""

import numpy as np
import pytest
import torch
from scipy import stats

from batchlab import uniform, uniforms


def splitmix64(state: int, count: int) -> list[int]:
    """The generator as published, in Python's own integers."""
    found = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        found.append(finalised(state))
    return found


def finalised(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def fnv1a(text: bytes) -> int:
    key = 0xCBF29CE484222325
    for byte in text:
        key = ((key ^ byte) * 0x100000001B3) % 2**64
    return key


def test_the_oracle_is_the_published_generator_and_the_published_hash():
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert fnv1a(b"a") == 0xAF63DC4C8601EC8C
    assert fnv1a(b"foobar") == 0x85944171F73967E8


@pytest.mark.parametrize("stream", ["crop", "a name longer than eight bytes", "größe"])
def test_numbers_are_those_of_the_generator_begun_at_a_mix_of_draw_and_name(stream):
    draws = [0, 1, -1, 12345, 2**63 - 1, -(2**63)]
    begun = [finalised((draw % 2**64) ^ (fnv1a(stream.encode()) >> 1)) for draw in draws]
    expected = [[value >> 40 for value in splitmix64(state, 6)] for state in begun]

    found = uniform(torch.tensor(draws), stream, (2, 3))

    assert found.dtype == torch.float32
    assert (found.double() * 2**24).reshape(6, 6).tolist() == expected
    assert torch.equal(uniform(torch.tensor(draws), stream), found[:, 0, 0])


def test_neighbouring_draws_names_and_places_give_uniform_and_independent_numbers():
    draws = torch.arange(20_000)
    rows = torch.cat([uniform(draws, "crop", (2,)), uniform(draws, "flip", (2,)), uniform(draws + 1, "crop", (1,))], 1)
    columns = rows.double().numpy().T

    for column in columns:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
        counts = np.bincount((column * 64).astype(int), minlength=64)
        assert stats.chisquare(counts).pvalue > 1e-4
    correlations = np.corrcoef(columns[:4])[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(len(draws))  # of 6 pairs
    assert np.abs(np.corrcoef(columns[0][:-1], columns[0][1:])[0, 1]) < 4.5 / np.sqrt(len(draws))
    assert np.array_equal(columns[0][1:], columns[4][:-1])  # only the draw matters, not its place in the batch


def test_the_largest_number_is_below_one_and_never_gives_an_index_out_of_range():
    largest = torch.tensor(1 - 2.0**-24)

    assert all(int((largest * n).long()) == n - 1 for n in range(1, 5000))
    assert float(uniform(torch.arange(200_000), "x").max()) < 1


def test_how_examples_are_cut_into_batches_changes_no_number():
    draws = torch.randint(-(2**62), 2**62, (97,), generator=torch.Generator().manual_seed(0))
    whole = uniform(draws, "cutout", (3,))

    assert torch.equal(torch.cat([uniform(part, "cutout", (3,)) for part in draws.split(13)]), whole)
    assert torch.equal(uniform(draws.flip(0), "cutout", (3,)), whole.flip(0))
    assert torch.equal(uniform(draws, "cutout", (5,))[:, :3], whole)
    assert tuple(uniform(draws[:0], "cutout", (3,)).shape) == (0, 3)


def test_several_streams_at_once_have_the_numbers_of_each_alone():
    draws = torch.randint(-(2**62), 2**62, (97,), generator=torch.Generator().manual_seed(0))
    streams = {"crop": (2,), "flip": (), "a cube": (2, 3, 2), "none": (0,), "one": (1,)}

    found = uniforms(draws, streams)

    assert list(found) == list(streams)
    for name, shape in streams.items():
        assert tuple(found[name].shape) == (97, *shape)
        assert torch.equal(found[name], uniform(draws, name, shape))
    assert uniforms(draws, {}) == {}


def test_global_generators_do_not_advance():
    state = torch.get_rng_state()

    uniform(torch.arange(10), "crop", (4,))

    assert torch.equal(torch.get_rng_state(), state)
