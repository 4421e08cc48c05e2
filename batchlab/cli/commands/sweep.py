"""`batchlab sweep`: every point of a grid."""

from batchlab.cli.training_help import asks_for_help, show_help

HELP = """\
usage: batchlab sweep [KNOB=VALUE,VALUE,... ...] [HYDRA OPTIONS]

Trains every point of a grid, each in a process of its own, and compares them.
The whole grid is checked before the first point starts. The same command again continues: a point that has its
answer (completed, oom, diverged) is not trained again, an unfinished one goes on from its checkpoint, a new one
is run. A point that failed or took longer than timeout=... stands as it is until --retry names it.

options:
  --retry STATUSES   run these again too, with commas between: failed, timeout, oom, diverged
  --force            run every point again, from its first step
  --dry-run          list what would be run, resumed and skipped, and run nothing

examples:
  batchlab sweep batch_size=8,32,256
  batchlab sweep 'batch_size=range(16,80,16)' seed=0,1,2
  batchlab sweep batch_size=64 accumulate=1,4 precision=fp32,bf16 lr_scaling=linear,sqrt
  batchlab sweep batch_size=8,32,256 --dry-run
  batchlab sweep batch_size=8,32,256 --retry failed,timeout
  batchlab sweep experiment=smoke
  batchlab sweep model._target_=my_net.Net data._target_=my_net.load batch_size=8,64
  batchlab sweep batch_size=8,32 --cfg job        shows the config and trains nothing"""


def main(arguments: list[str]) -> int:
    """Everything but a question for help goes to `hydra_app`; no argument at all is a sweep of one point."""
    if asks_for_help(arguments):
        return show_help(HELP)
    from batchlab.hydra_app import launch

    return launch("sweep", arguments)
