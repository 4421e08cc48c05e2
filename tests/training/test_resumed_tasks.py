"""Every kind of task resumes bitwise as if it had never stopped; killed at random moments: scripts/torture."""

import pytest
from torture import resuming, tasks
from torture.kth_call import quick

pytestmark = pytest.mark.long  # three runs for each kind of task


@pytest.mark.parametrize("kind", tasks.KINDS)
def test_resuming_is_exact_for_every_kind_of_task(kind, tmp_path):
    config = tasks.KINDS[kind]
    with quick():
        expected, steps = resuming.undisturbed(config, tmp_path)

        assert resuming.exact(config, (steps // 2,), expected, tmp_path) is None
