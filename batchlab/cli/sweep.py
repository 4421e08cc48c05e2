"""`batchlab sweep`: every point of a grid."""

from batchlab.cli.training_help import asks_for_help, show_help

HELP = """\
usage: batchlab sweep [KNOB=VALUE,VALUE,... ...] [HYDRA OPTIONS]

Trains every point of a grid, each in a process of its own, and compares them.
The whole grid is checked before the first point starts. A point that has its answer already is not trained
again, so the same command continues a sweep that was interrupted.

examples:
  batchlab sweep batch_size=8,32,256
  batchlab sweep 'batch_size=range(16,80,16)' seed=0,1,2
  batchlab sweep batch_size=64 accumulate=1,4 precision=fp32,bf16 lr_scaling=linear,sqrt
  batchlab sweep experiment=smoke
  batchlab sweep model._target_=my_net.Net data._target_=my_net.load batch_size=8,64
  batchlab sweep batch_size=8,32 --cfg job        shows the config and trains nothing"""


def main(arguments: list[str]) -> int:
    """Everything but a question for help is Hydra's; no argument at all is a sweep of one point."""
    if asks_for_help(arguments):
        return show_help(HELP)
    from batchlab.hydra_app import launch

    return launch("sweep", arguments)
