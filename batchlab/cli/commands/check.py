"""`batchlab check`: whether a model and its data can be measured, and how to mend what is wrong."""

from batchlab.cli.training_help import asks_for_help, show_help

HELP = """\
usage: batchlab check [KNOB=VALUE ...] [HYDRA OPTIONS]

Passes a few examples of the data through the model, at its initial weights, and says in plain words what is wrong and
how to mend it: what the data holds and whether it is the same when it is made again, labels, number formats, shapes,
one loss per example, random numbers and state in forward, whether an example gets the same loss alone as beside others,
the gradient, BatchNorm, metrics, the speed of the data, whether a few steps on a few examples bring their loss down,
whether accumulating is the large batch. It writes nothing; user code runs in a process of its own.

exit codes: 0 nothing is wrong; 1 something is; 2 bad request

examples:
  batchlab check                                  in a folder that `batchlab init` made
  batchlab check model._target_=my_net.Net data._target_=my_net.load
  batchlab check model=cnn batch_size=1
  batchlab check data=digits model=mlp
  batchlab check batch_size=32 micro_batch_size=8"""


def main(arguments: list[str]) -> int:
    """Everything but a question for help goes to `hydra_app`."""
    if asks_for_help(arguments):
        return show_help(HELP)
    from batchlab.hydra_app import launch

    return launch("check", arguments)
