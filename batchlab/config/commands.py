"""The one table of the commands that take options of the configuration: parsing, help and completion read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from batchlab.config.options import SOUGHT, SWEEP

HYDRA_FLAGS = ("--config-dir", "--cfg", "--info", "--package", "--resolve", "--hydra-help")
FOR_RUNS = (*SWEEP, "published")  # options that do nothing where no run is made; `grids` says which points there are


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command: what it takes and refuses, and the text of its help."""

    takes: str  # its arguments as the usage line shows them, before Hydra's options
    about: str
    examples: str
    for_runs: bool = False  # whether it makes runs, or shows the config with which they would be made
    one_point: str = ""  # the end of the message that refuses a grid; empty where the command takes one
    settings: tuple[str, ...] = ()  # written as options are, but not part of the configuration
    refuses: Mapping[str, str] = field(default_factory=dict)  # options that it decides itself: why, and what to type
    own_flags: Mapping[str, str] = field(default_factory=dict)  # with their meaning
    hydra: tuple[str, ...] = HYDRA_FLAGS  # those of Hydra's flags that are useful with it; empty: it takes none
    launched: bool = True  # passed to Hydra as typed; the others have a module in `cli.commands`

    @property
    def described_flags(self) -> dict[str, str]:
        """Our flags that the command takes, as its help shows them, each with its meaning."""
        rows = [row for row in SWEEP.values() if row.flag and self.for_runs]
        return {row.flag + " STATUSES" * bool(row.items): row.meaning for row in rows} | dict(self.own_flags)

    @property
    def flags(self) -> tuple[str, ...]:
        """Every flag to offer."""
        return ("--help", *(flag.split()[0] for flag in self.described_flags), *self.hydra)

    def takes_option(self, name: str) -> bool:
        """Whether an option of the configuration may be given to the command."""
        return name not in self.refuses and (self.for_runs or name not in FOR_RUNS)


COMMANDS = {
    "train": Command(
        takes="[OPTION=VALUE ...]",
        for_runs=True,
        one_point="runs one: use `batchlab sweep ...`",
        about="""\
Trains one point and records it in runs/<study>/. A finished point is not trained again, an unfinished one resumes from
its checkpoint, and one that failed or timed out is run again only with --retry.""",
        examples="""\
  batchlab train
  batchlab train batch_size=64 model=cnn epochs=5
  batchlab train batch_size=64 --retry failed
  batchlab train optimizer=adamw lr=0.001 batch_size=128 accumulate=4
  batchlab train target.metric=val/accuracy target.value=0.95 stop_at_target=true
  batchlab train batch_size=64 --cfg job          shows the config and trains nothing""",
    ),
    "sweep": Command(
        takes="[OPTION=VALUE,VALUE,... ...]",
        for_runs=True,
        about="""\
Trains every point of a grid, each in a process of its own, and compares them.
The whole grid is checked before the first point starts. The same command again continues the sweep: a finished point
(completed, oom, diverged) is not trained again, an unfinished one resumes from its checkpoint, and a new one is run.
A point that failed or took longer than timeout=... is run again only where --retry names its status.""",
        examples="""\
  batchlab sweep batch_size=8,32,256
  batchlab sweep 'batch_size=range(16,80,16)' seed=0,1,2
  batchlab sweep batch_size=64 accumulate=1,4 precision=fp32,bf16 lr_scaling=linear,sqrt
  batchlab sweep batch_size=8,32,256 --dry-run
  batchlab sweep batch_size=8,32,256 --retry failed,timeout
  batchlab sweep experiment=smoke
  batchlab sweep model._target_=my_net.Net data._target_=my_net.load batch_size=8,64
  batchlab sweep batch_size=8,32 --cfg job        shows the config and trains nothing""",
    ),
    "find": Command(
        takes="[memory_limit=SIZE] [at_most=EXAMPLES] [OPTION=VALUE,... ...]",
        settings=("memory_limit", "at_most"),
        refuses=dict.fromkeys(SOUGHT, "find searches for the batch size; leave it out, or limit it with at_most=..."),
        launched=False,
        about="""\
Finds the largest micro-batch that fits: predicts it from small probes, tries the prediction, and narrows it down. Each
probe is a separate process that trains three steps and validates once at exactly that size. A size is reported only if
it ran twice, with 5% of the memory left. Sizes are tried on a grid: all up to 63, then 1.6 to 3.1% apart. Data with
fewer examples is repeated. Where options have several values, each combination is searched separately. The result is
kept in runs/<study>/find/; it includes the throughput knee, the smallest size within 10% of the best speed.

settings of find:
  memory_limit=SIZE  memory that training may use: data, weights, gradients, optimizer, activations. On a GPU it is the
                     size of the card, of which CUDA itself takes some; on the CPU it is what the process takes beyond
                     its size with all libraries loaded. A number with KiB, MiB, GiB, TiB (or kB, MB, GB, TB). Default:
                     the free memory of the CUDA device; on the CPU nine tenths of what is available now
  at_most=EXAMPLES   try no larger micro-batch (default 65,536)

exit codes: 0 found; 2 bad request, nothing was tried; 3 nothing fits, or something other than memory ended the search;
  74 the disk cannot be written; 130, 143 interrupted""",
        examples="""\
  batchlab find
  batchlab find device=cpu memory_limit=600MiB model=cnn
  batchlab find precision=fp32,bf16 accumulate=1,4 memory_limit=8GiB
  batchlab find model=cnn optimizer=adamw model.width=16,64 at_most=4096
  batchlab find model._target_=my_net.Net data._target_=my_net.load""",
    ),
    "check": Command(
        takes="[OPTION=VALUE ...]",
        one_point="takes one point: give each option one value",
        about="""\
Passes a few examples of the data through the model, at its initial weights, and says what is wrong and how to fix it.
It checks the data, and whether it is the same when it is loaded again; labels, dtypes and shapes; one loss per example;
random numbers and state in forward; whether an example gets the same loss alone as in a batch; the gradient; BatchNorm;
metrics; the speed of the data; whether a few steps on a few examples lower their loss; and whether accumulating gives
the gradient of the large batch. It writes nothing; user code runs in a separate process.

exit codes: 0 nothing is wrong; 1 something is; 2 bad request""",
        examples="""\
  batchlab check                                  in a folder that `batchlab init` made
  batchlab check model._target_=my_net.Net data._target_=my_net.load
  batchlab check model=cnn batch_size=1
  batchlab check data=digits model=mlp
  batchlab check batch_size=32 micro_batch_size=8""",
    ),
    "verify": Command(
        takes="accumulate=N [OPTION=VALUE ...]",
        one_point="takes one point: give each option one value",
        about="""\
Compares the gradient of a whole batch with the one accumulated over its micro-batches, for this model and data at
their initial weights: |accumulated - whole| / |whole|, in fp32 and float64. Where this is more than rounding, it takes
out the possible causes one at a time (BatchNorm, dropout, a loss that is not a mean, any module that mixes examples),
names what made the difference, and says what to type. It trains nothing and writes nothing.

exit codes: 0 the same gradient, up to rounding and the random numbers that every pass draws; 1 a different gradient;
  2 bad request""",
        examples="""\
  batchlab verify model=mlp accumulate=4
  batchlab verify model=cnn accumulate=4
  batchlab verify model=cnn accumulate=4 model.ghost_batch=8
  batchlab verify batch_size=50 micro_batch_size=16       the last micro-batch holds 2
  batchlab verify accumulate=4 precision=bf16
  batchlab verify model._target_=my_net.Net data._target_=my_net.load accumulate=2""",
    ),
    "config": Command(
        takes="[OPTION=VALUE ...]",
        for_runs=True,
        own_flags={"--markdown": "show every option and key as a page; no other argument may be given"},
        hydra=tuple(flag for flag in HYDRA_FLAGS if flag not in ("--cfg", "--info")),  # it is `train --cfg job`
        launched=False,
        about="Shows every option, or the config that a command would use.",
        examples="""\
  batchlab config                              every option, with its default and what it takes
  batchlab config batch_size=8 model=cnn       the config that train would use, as YAML
  batchlab config experiment=smoke
  batchlab config --markdown                   every option and key as a page, which is docs/configuration.md""",
    ),
    "lr-table": Command(
        takes="[OPTION=VALUE ...] batch_size=VALUE,VALUE,...",
        refuses={"lr_scaling": "the table shows every rule; leave it out"},
        hydra=(),
        launched=False,
        about="""\
Shows the learning rate, betas and eps that each rule of lr_scaling gives, and the schedule over the budget. Nothing is
trained. Any option below may be given; of those that change the learning rate, only batch_size may have several values.
Where an optimizer's betas and eps are not in its config, they are read from PyTorch, which takes seconds to start.""",
        examples="""\
  batchlab lr-table batch_size=8,32,256
  batchlab lr-table batch_size=8,32,256 lr=0.1 optimizer=adamw noise_scale=120
  batchlab lr-table batch_size=8,512 schedule=wsd schedule_floor=0.1 warmup=0.05
  batchlab lr-table 'batch_size=range(16,80,16)' reference_batch_size=64
  batchlab lr-table batch_size=8,512 optimizer=adamw 'optimizer.betas=[0.9,0.95]'
  batchlab lr-table batch_size=8,512 noise_scale=runs/digits-mlp/RUN     as a run with instruments=full measured it
  batchlab lr-table batch_size=8,512 optimizer._target_=torch.optim.Adam""",
    ),
}
