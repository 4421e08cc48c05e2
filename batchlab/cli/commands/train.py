"""`batchlab train`: one point."""

from batchlab.cli.training_help import asks_for_help, show_help

HELP = """\
usage: batchlab train [KNOB=VALUE ...] [HYDRA OPTIONS]

Trains one point and records it in runs/<study>/. A point that has its answer already is not trained again, an
unfinished one goes on from its checkpoint, and one that failed or timed out stands as it is until --retry.

options:
  --retry STATUSES   run it again if it is one of these: failed, timeout, oom, diverged
  --force            run it again, from its first step
  --dry-run          say what would be done, and do nothing

examples:
  batchlab train
  batchlab train batch_size=64 model=cnn epochs=5
  batchlab train batch_size=64 --retry failed
  batchlab train optimizer=adamw lr=0.001 batch_size=128 accumulate=4
  batchlab train target.metric=val/accuracy target.value=0.95 stop_at_target=true
  batchlab train batch_size=64 --cfg job          shows the config and trains nothing"""


def main(arguments: list[str]) -> int:
    """Everything but a question for help goes to `hydra_app`."""
    if asks_for_help(arguments):
        return show_help(HELP)
    from batchlab.hydra_app import launch

    return launch("train", arguments)
