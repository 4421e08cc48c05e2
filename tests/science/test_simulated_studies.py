"""Some of the simulated studies of 22 claims each; scripts/torture runs all 2,000 of each kind."""

import pytest
from torture.simulated_studies import CASES, found

OF_NAME = {these.name: these for these in CASES}


@pytest.mark.parametrize("name", ["8 seeds", "3 seeds, rounded", "a tenth of the runs lost"])
def test_where_batch_sizes_do_nothing_one_study_in_twenty_supports_a_claim_at_most(name):
    these = found(OF_NAME[name], studies=80)

    assert max(these.supported, these.other_way) <= 0.05, these


def test_effects_of_three_standard_deviations_are_found_among_22_claims_with_8_seeds():
    these = found(OF_NAME["8 seeds, an effect of 3 standard deviations in one claim"], studies=50)

    assert these.planted >= 0.9, these
    assert these.supported <= 0.05, these
