"""`batchlab verify`: whether accumulating is the large batch, for one point."""

from batchlab.cli.training_help import asks_for_help, show_help

HELP = """\
usage: batchlab verify accumulate=N [KNOB=VALUE ...] [HYDRA OPTIONS]

Compares the gradient of a whole batch with the one accumulated over its micro-batches, for this model and data at
their initial weights: |accumulated - whole| / |whole|, in fp32 and float64. Where it is more than rounding, it takes
out one suspect after the other (BatchNorm, dropout, a loss that is no mean, any module that mixes examples), names
what made the difference, and says what to type. It trains nothing and writes nothing.

exit codes: 0 the same gradient, to rounding and to the random numbers that every pass draws anew; 1 another one;
  2 bad request

examples:
  batchlab verify model=mlp accumulate=4
  batchlab verify model=cnn accumulate=4
  batchlab verify model=cnn accumulate=4 model.ghost_batch=8
  batchlab verify batch_size=50 micro_batch_size=16       the last micro-batch holds 2
  batchlab verify accumulate=4 precision=bf16
  batchlab verify model._target_=my_net.Net data._target_=my_net.load accumulate=2"""


def main(arguments: list[str]) -> int:
    """Everything but a question for help goes to `hydra_app`."""
    if asks_for_help(arguments):
        return show_help(HELP)
    from batchlab.hydra_app import launch

    return launch("verify", arguments)
