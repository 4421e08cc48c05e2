"""Wrong command lines, with the exit code and the one-line message that each must get: plain data, and `run_all`.

A line is what is typed after `batchlab`, quoted as for a shell. The message is a regular expression, found anywhere
after `batchlab: `.
"""

import contextlib
import io
import os
import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

from batchlab.cli.main import main

INTEGER = "it must be an integer of at least 1, in examples$"
UNREADABLE = "cannot read '.*': write key=value or key=value,value,... and quote values with spaces"
OUTSIDE = "unknown model '.*': (use one of cnn, .*mlp, .*|did you mean 'mlp'\\?)$"
PLACE = "set where runs are kept by runs_dir=... and study=...$"
LOGS = "each run's output is in its worker.log, and hydra.verbose=true shows Hydra's own$"
LAUNCHER_ONLY = "hydra/launcher=..., hydra.launcher.key=... and hydra.verbose=... may be set$"

# (line, message); exit code 2
BAD: list[tuple[str, str]] = [
    # an invalid batch size
    ("sweep batch_size=0", f"batch_size=0 is invalid: {INTEGER}"),
    ("sweep batch_size=-4", f"batch_size=-4 is invalid: {INTEGER}"),
    ("sweep batch_size=8.5", f"batch_size=8.5 is invalid: {INTEGER}"),
    ("sweep batch_size=32.0", f"batch_size=32.0 is invalid: {INTEGER}"),
    ("sweep batch_size=1e3", f"batch_size=1000.0 is invalid: {INTEGER}"),
    ("sweep batch_size=true", f"batch_size=true is invalid: {INTEGER}"),
    ("sweep \"batch_size='8'\"", f"batch_size='8' is invalid: {INTEGER}"),
    ("sweep batch_size=0x10", f"batch_size='0x10' is invalid: {INTEGER}"),
    ("sweep batch_size=08", f"batch_size='08' is invalid: {INTEGER}"),
    ("sweep batch_size=010", f"batch_size='010' is invalid: {INTEGER}"),
    ("sweep batch_size=nan", f"batch_size=nan is invalid: {INTEGER}"),
    ("sweep batch_size=inf", f"batch_size=inf is invalid: {INTEGER}"),
    ("sweep batch_size=", f"batch_size='' is invalid: {INTEGER}"),
    ("sweep batch_size=null", f"batch_size=null is invalid: {INTEGER}"),
    ("sweep 'batch_size=8 32'", f"batch_size='8 32' is invalid: {INTEGER}"),
    ("sweep 'batch_size=[8,32]'", r"batch_size=\[8, 32\] is invalid: .*; several values .* without brackets, .*=8,32$"),
    ("sweep 'batch_size={a:1}'", f"batch_size={{'a': 1}} is invalid: {INTEGER}"),
    ("sweep 'batch_size=\"8,32\"'", f"batch_size='8,32' is invalid: {INTEGER}"),
    ("sweep batch_size=8:32", f"batch_size='8:32' is invalid: {INTEGER}"),
    ("sweep batch_size=8-32", f"batch_size='8-32' is invalid: {INTEGER}"),
    ("sweep batch_size=8..32", f"batch_size='8..32' is invalid: {INTEGER}"),
    ("sweep 'batch_size=$SIZE'", rf"batch_size='\$SIZE' is invalid: {INTEGER}"),
    ("sweep batch_size=8,32,0", f"batch_size=0 is invalid: {INTEGER}"),  # the last of a grid
    ("sweep 'batch_size=range(-1,3)'", f"batch_size=-1 is invalid: {INTEGER}"),
    ("sweep 'batch_size=range(1.0,3.0)'", f"batch_size=1.0 is invalid: {INTEGER}"),
    ("train batch_size=0", f"batch_size=0 is invalid: {INTEGER}"),
    ("config batch_size=0", f"batch_size=0 is invalid: {INTEGER}"),
    ("sweep --cfg job batch_size=0", f"batch_size=0 is invalid: {INTEGER}"),
    # what Hydra's grammar does not accept
    ("sweep batch_size=8,", "cannot read 'batch_size=8,': a comma must be between two values"),
    ("sweep batch_size=8,,32", "cannot read 'batch_size=8,,32': a comma must be between two values"),
    ("sweep batch_size=,8", "cannot read 'batch_size=,8': a comma must be between two values"),
    ("sweep 'batch_size=8;32'", "cannot read 'batch_size=8;32': separate values by commas"),
    ("sweep batch_size", "cannot read 'batch_size': it has no value; write batch_size=...$"),
    ("sweep batch_size 8", "cannot read 'batch_size': it has no value; write batch_size=...$"),
    ("sweep =8", "cannot read '=8': it has no key; write key=value$"),
    ("sweep 8", "cannot read '8': it has no value; `batchlab config` lists the options$"),
    ("sweep ''", UNREADABLE),
    ("sweep batch_size=٨", UNREADABLE),
    ("sweep batch_size==8", UNREADABLE),
    ("sweep 'batch_size =8'", UNREADABLE),
    ("sweep 'batch size=8'", UNREADABLE),
    ('sweep "batch_size=\'8"', UNREADABLE),
    ('sweep "batch_size=8\'"', UNREADABLE),
    ("sweep 'batch_size=(8)'", UNREADABLE),
    ("sweep 'batch_size=foo(8)'", UNREADABLE),
    ("sweep 'batch_size=choice()'", UNREADABLE),
    ("sweep 'batch_size=range(a,b)'", UNREADABLE),
    ("sweep 'batch_size=range(1,5'", UNREADABLE),
    ("sweep 'batch_size=int(x)'", UNREADABLE),
    ("sweep 'model.width=[1,2'", UNREADABLE),
    ("sweep 'batch_size=8\n32'", UNREADABLE),
    ("sweep 'batch_size=8\x00'", UNREADABLE),
    ("sweep 'batch_size=\x1b[31m8'", UNREADABLE),
    ("sweep ++", UNREADABLE),
    ("sweep -", UNREADABLE),
    # grids
    ("sweep 'batch_size=range(1,10,0)'", r"range\(1,10,0\) is invalid: the step of a range must not be 0$"),
    ("sweep 'lr=range(0,1,0.0)'", r"range\(0,1,0.0\) is invalid: the step of a range must not be 0$"),
    ("sweep 'lr=interval(0,1)'", r"lr=interval\(0,1\) gives no list of values: write them with commas, or range"),
    ("sweep 'batch_size=range(1,1000000000000)'", "more than 100,000 points: give fewer values"),
    ("sweep 'batch_size=range(1,2000)' 'seed=range(0,2000)'", "more than 100,000 points: give fewer values"),
    ("train batch_size=8,32", "a grid of 2 points, and `batchlab train` runs one: use `batchlab sweep"),
    ("train batch_size=8 seed=0,1", "a grid of 2 points, and `batchlab train` runs one"),
    ("train experiment=smoke", "a grid of [0-9]+ points, and `batchlab train` runs one"),
    ("sweep grids=3", "grids must be a list of lists of overrides"),
    ("sweep 'grids=[a]'", "grids must be a list of lists of overrides"),
    ("sweep 'grids=[[a]]'", "grids holds 'a', which is not an override"),
    ("sweep 'grids=[[8,32]]'", "grids holds 8, which is not an override"),
    ("sweep jobs=1,2", "jobs=1 and jobs=2 in one sweep: jobs must be the same for all points; give it one value$"),
    ("sweep force=true,false", "force=true and force=false in one sweep"),
    ("sweep 'retry=[failed],[timeout]'", r"retry=\[failed\] and retry=\[timeout\] in one sweep"),
    ("sweep dry_run=true,false batch_size=8,32", "dry_run=true and dry_run=false in one sweep"),
    # options for runs
    ("check report=false", "report is for runs, and `batchlab check` makes none: leave it out$"),
    ("check jobs=1", "jobs is for runs, and `batchlab check` makes none"),
    ("verify accumulate=4 skip_larger=true", "skip_larger is for runs, and `batchlab verify` makes none"),
    ("verify accumulate=4 --retry failed", "retry is for runs, and `batchlab verify` makes none"),
    ("verify accumulate=4 published=[]", "published is for runs, and `batchlab verify` makes none"),
    ("config --info", "--info cannot be given with --cfg, which `batchlab config` adds"),
    ("sweep --cfg job --info", "--info cannot be given with --cfg"),
    ("find ++accept_changed=true", "accept_changed is for runs, and `batchlab find` makes none"),
    ("find --force", "force is for runs, and `batchlab find` makes none"),
    ("lr-table dry_run=true", "dry_run is for runs, and `batchlab lr-table` makes none"),
    # learning rates and other numbers
    ("sweep lr=0", "lr=0 is invalid: it must be a number above 0$"),
    ("sweep lr=-1", "lr=-1 is invalid: it must be a number above 0$"),
    ("sweep lr=nan", "lr=nan is invalid: it must be a number above 0$"),
    ("sweep lr=1e400", "lr=inf is invalid: it must be a number above 0$"),
    ("sweep lr=1e-400", "lr=0.0 is invalid: it must be a number above 0$"),
    ("sweep lr=1e", "lr='1e' is invalid: it must be a number above 0$"),
    ("sweep lr=0.1.2", "lr='0.1.2' is invalid: it must be a number above 0$"),
    ("sweep lr=1/10", "lr='1/10' is invalid: it must be a number above 0$"),
    ("sweep lr=0,1", "lr=0 is invalid"),
    ("sweep weight_decay=-1", "weight_decay=-1 is invalid: it must be a number of at least 0$"),
    ("sweep clip_norm=0", "clip_norm=0 is invalid: it must be a number above 0, or null$"),
    (
        "sweep warmup=-1",
        "warmup=-1 is invalid: it must be .* 0, in fractions of the budget if below 1, else in examples$",
    ),
    ("sweep warmup=5%", "warmup='5%' is invalid: .* of the budget if below 1, else in examples: write warmup=0.05$"),
    ("sweep seed=-1", "seed=-1 is invalid: it must be an integer of at least 0"),
    ("sweep seed=1.5", "seed=1.5 is invalid: it must be an integer"),
    ("sweep seed=18446744073709551616", "seed=18446744073709551616 is invalid: .* at most 9223372036854775807$"),
    ("sweep threads=0", "threads=0 is invalid: it must be an integer of at least 1$"),
    ("sweep jobs=0", "jobs=0 is invalid: it must be an integer of at least 1$"),
    ("sweep timeout=0", "timeout=0 is invalid: it must be a number above 0, in seconds, or null$"),
    (
        "sweep timeout=1h",
        "timeout='1h' is invalid: .* above 0, in seconds, or null: write timeout=3600$",
    ),
    ("sweep 'timeout=1.5 min'", "timeout='1.5 min' is invalid: .*, in seconds, or null: write timeout=90$"),
    ("sweep timeout=0s", "timeout='0s' is invalid: it must be a number above 0, in seconds, or null$"),
    ("sweep timeout=5%", "timeout='5%' is invalid: it must be a number above 0, in seconds, or null$"),
    ("sweep checkpoint_every=10s", "checkpoint_every='10s' is invalid: .* of at least 1, in examples, or null$"),
    ("sweep checkpoint_every=0.5", "checkpoint_every=0.5 is invalid: .* of at least 1, in examples, or null$"),
    ("sweep eval_every=0", "eval_every=0 is invalid: it must be an integer of at least 1, in examples, or null$"),
    ("sweep eval_batch_size=null", "eval_batch_size=null is invalid"),
    (
        "sweep eval_precision=bf16",
        "eval_precision=bf16 is invalid: it must be one of fp32, same$",
    ),
    ("sweep log_every=-5", "log_every=-5 is invalid"),
    # budgets and micro-batches
    ("sweep epochs=1 steps=5", "epochs=1 and steps=5 set the length of training more than once: give only one of "),
    ("sweep epochs=0", "epochs=0 is invalid: it must be a number above 0$"),
    ("sweep steps=2.5", "steps=2.5 is invalid: it must be an integer above 0$"),
    ("sweep examples=-1", "examples=-1 is invalid: it must be an integer above 0$"),
    ("sweep default_epochs=null", "default_epochs=null is invalid"),
    ("sweep accumulate=0", "accumulate=0 is invalid: it must be an integer of at least 1, in micro-batches, or null$"),
    ("sweep batch_size=32 accumulate=33", "accumulate=33 is larger than batch_size=32: use at most 32$"),
    ("sweep batch_size=32 accumulate=20", "accumulate=20 does not fit batch_size=32: .*; use accumulate=16"),
    ("sweep batch_size=8,32 accumulate=16", "accumulate=16 is larger than batch_size=8"),
    (
        "sweep batch_size=8 micro_batch_size=16",
        "micro_batch_size=16 is larger than batch_size=8: use at most 8, or a larger batch_size$",
    ),
    ("sweep batch_size=32 micro_batch_size=8 accumulate=5", "accumulate=5 does not fit .*; use accumulate=4"),
    # choices
    ("sweep lr_scaling=cubic", "lr_scaling=cubic is invalid: it must be one of none, linear, sqrt"),
    ("sweep lr_scaling=linear,noise", "lr_scaling=noise needs noise_scale=...: a number of examples, such as"),
    ("sweep lr_scaling=linear,noise noise_scale=9", "lr_scaling=linear does not use noise_scale=9: leave it out"),
    ("sweep lr_scaling=noise noise_scale=runs/a/b", "noise_scale=runs/a/b is invalid: no run is there; give a number"),
    ("sweep schedule=cosin", "schedule=cosin is invalid: .*: did you mean 'cosine'\\?$"),
    ("sweep schedule=onecycle", "schedule=onecycle is invalid: .*: did you mean 'one_cycle'\\?$"),
    (
        "sweep schedule._target_=poly",
        "schedule._target_='poly' is invalid: write module.name, such as my_net.Net$",
    ),
    (
        "sweep schedule=step schedule_milestones=[0.7,0.5]",
        "schedule_milestones=.* is invalid: .* in rising order, such",
    ),
    (
        "sweep schedule=step,cosine schedule_factor=0.5",
        "schedule=cosine does not use schedule_factor=0.5: leave it out",
    ),
    ("sweep precision=fp8", "precision=fp8 is invalid: it must be one of fp32, tf32, bf16, fp16$"),
    ("sweep precision=float16", "precision=float16 is invalid: .*: did you mean 'fp16'\\?$"),
    ("sweep lr_scaling=square", "lr_scaling=square is invalid: .*: did you mean 'sqrt'\\?$"),
    ("sweep precision=fp32,fp8", "precision=fp8 is invalid"),
    ("sweep device=gpu", "device=gpu is invalid: it must be auto, cpu, cuda or cuda:N$"),
    (
        "sweep device=mps",
        r"device=mps is invalid: batchlab trains on the CPU and on GPUs .*, not on Apple's: use device=cpu$",
    ),
    ("sweep device=cuda:x", "device=cuda:x is invalid: it must be auto, cpu, cuda or cuda:N$"),
    ("sweep deterministic=1", "deterministic=1 is invalid: it must be true or false$"),
    ("sweep stop_at_target=yes", "stop_at_target='yes' is invalid: it must be true or false$"),
    ("sweep stop_at_target=true", "stop_at_target=true needs a target: add target.value=..."),
    ("sweep trust=timm", r"trust='timm' is not a list of package names; write trust=\[timm,transformers\]$"),
    (
        "sweep 'retry=[faild]'",
        "retry holds 'faild', but takes only failed, timeout, oom, diverged: did you mean 'failed'",
    ),
    ("sweep target=0.15", "target=0.15 is invalid: .*; write target.value=0.15$"),
    ("sweep target=val/accuracy", "write target.metric=val/accuracy target.value=0.15$"),
    ("sweep target.value=low", "target.value='low' is invalid: it must be a number, or null for no target$"),
    (
        "sweep target.metric=accuracy",
        "target.metric='accuracy' is invalid: it must be val/loss or another val/<metric>$",
    ),
    # unknown keys
    ("sweep batchsize=8", "unknown key 'batchsize': did you mean 'batch_size'\\?$"),
    ("sweep Batch_Size=8", "unknown key 'Batch_Size': did you mean 'batch_size'\\?$"),
    ("sweep batch-size=8", "unknown key 'batch-size': did you mean 'batch_size'\\?$"),
    ("sweep +batchsize=8", "unknown key 'batchsize': did you mean 'batch_size'\\?$"),
    ("sweep ++zzz=8", "unknown key 'zzz': `batchlab config` lists the keys$"),
    ("sweep zzz=8", "unknown key 'zzz': `batchlab config` lists the keys$"),
    ("config lrr=1", "unknown key 'lrr': did you mean 'lr'\\?$"),
    ("sweep 'hidden=[data.root]'", "unknown key 'hidden'"),
    ("sweep '+hidden=[data.root]'", "unknown key 'hidden'"),
    ("sweep optimizer.lr=0.1", "unknown key 'optimizer.lr': write lr=..., without 'optimizer.'$"),
    ("sweep optimizer.learning_rate=0.1", "unknown key 'optimizer.learning_rate': write lr=..., without 'optimizer.'$"),
    ("sweep data.batch_size=8", "unknown key 'data.batch_size': write batch_size=..., without 'data.'$"),
    ("sweep data.crop=4", "unknown key 'data.crop': data=digits takes train_size, label_noise; data=cifar10 has crop$"),
    ("sweep optimizer.beta1=0", "unknown key .*: optimizer=sgd takes momentum, nesterov, fused; .*=adamw has betas$"),
    (
        "sweep optimizer=adamw optimizer.momentum=0",
        "adamw takes betas, eps, fused; optimizer=sgd has momentum$",
    ),
    ("sweep instruments.noise_scale.draws=9", "instruments takes .*, validation; instruments=full has noise_scale$"),
    ("sweep instruments.memory.x=9", "unknown key 'instruments.memory.x': instruments.memory takes no keys$"),
    ("sweep instruments.mine.x=9", r"write \+instruments.mine._target_=my_file.Name for an instrument of your own$"),
    ("sweep momentum=0.9", "unknown key 'momentum': did you mean 'optimizer.momentum'\\?$"),
    ("sweep width=64", "unknown key 'width': did you mean 'model.width'\\?$"),
    ("sweep model.widht=8", "unknown key 'model.widht': did you mean 'model.width'\\?$"),
    ("sweep model.zzz=8", "unknown key 'model.zzz': model=mlp takes width, depth, .*, dropout$"),
    ("sweep target.valu=1", "unknown key 'target.valu': did you mean 'target.value'\\?$"),
    ("sweep lr.x=3", "unknown key 'lr.x': lr takes no keys$"),
    ("sweep foo/bar=x", "unknown key 'foo/bar'"),
    ("sweep +batch_size=8", "batch_size=... is invalid: batch_size is already there; write batch_size=...$"),
    (
        "sweep '~batch_size'",
        "'batch_size' has no value, because the config or ~batch_size removed it: give batch_size=...$",
    ),
    ("sweep '~model'", "'model' has no value, because"),
    ("sweep 'batch_size=${nothing}'", "Interpolation key 'nothing' not found"),
    ("sweep 'batch_size=${batch_size}'", "Recursive interpolation"),
    ("sweep 'batch_size=${oc.env:NO_SUCH_VARIABLE_HERE}'", "Environment variable 'NO_SUCH_VARIABLE_HERE' not found"),
    # options of groups
    ("sweep model=lenet", "unknown model 'lenet': did you mean 'resnet8'\\?$"),
    ("sweep model=", "unknown model ''"),
    ("sweep model=null", "model=null is invalid: it must be one of the names that `batchlab config` lists"),
    ("sweep model=3", "model=3 is invalid: it must be one of the names that `batchlab config` lists"),
    ("sweep model=mlp,3", "model=mlp,3 is invalid: it must be one of the names that `batchlab config` lists"),
    ("sweep model=own", "model=own needs the name of a class or function: add model._target_=my_net.Net$"),
    ("sweep data=own", "data=own needs the name of a class or function: add data._target_=my_net.load$"),
    ("sweep optimizer=own", "optimizer=own needs the name .*: add optimizer._target_=torch.optim.RMSprop$"),
    ("sweep optimizer=adam", "unknown optimizer 'adam': did you mean 'adamw'\\?$"),
    ("sweep data=imagenet", "unknown data 'imagenet': did you mean 'image_folder'\\?$"),
    ("sweep experiment=smok", "unknown experiment 'smok': did you mean 'smoke'\\?$"),
    ("sweep experiment=literature/keskar", "unknown experiment .*: did you mean 'literature/keskar_f1'\\?$"),
    ("sweep experiment=keskar_f1", "unknown experiment 'keskar_f1': did you mean 'literature/keskar_f1'\\?$"),
    (
        "sweep experiment=literature",
        "unknown experiment 'literature': use one of literature/goyal_warmup, li",
    ),
    (
        "sweep experiment=null",
        "experiment=null is invalid: it must be one of the names that `batchlab config` lists",
    ),
    ("sweep model._target_=Net", "model._target_='Net' is invalid: write module.name"),
    ("sweep model._target_=../net.Net", "model._target_='../net.Net' is invalid: write module.name"),
    # out of the folder of the configs
    ("sweep model=../../evil", OUTSIDE),
    ("sweep model=../model/mlp", OUTSIDE),
    ("sweep model=mlp/../cnn", OUTSIDE),
    ("sweep model=./mlp", OUTSIDE),
    ("sweep model=..", OUTSIDE),
    ("sweep model=/etc/passwd", OUTSIDE),
    ("sweep model=//etc/passwd", OUTSIDE),
    (r"sweep 'model=..\\\\evil'", OUTSIDE),
    ("sweep model=~/evil", "cannot read 'model=~/evil'"),
    ("sweep \"model='~/evil'\"", OUTSIDE),
    ("sweep model=%2e%2e%2fevil", OUTSIDE),
    ("sweep \"model='../evil\x00'\"", OUTSIDE),
    ("sweep \"model='mlp\x00'\"", OUTSIDE),
    ("sweep \"model='\x1b[31m'\"", OUTSIDE),
    ("sweep model=mlp,../../evil", OUTSIDE),
    ("sweep 'model=[../../evil]'", "unknown config 'model/../../evil'"),
    ("sweep +model@data=../../evil", OUTSIDE),
    ("sweep \"grids=[['model=../../evil']]\"", OUTSIDE),
    ("sweep experiment=../../evil", "unknown experiment '../../evil': use one of .*smoke, .*$"),
    ("sweep experiment=../model/mlp", "unknown experiment '../model/mlp'"),
    ("sweep hydra/launcher=../../evil", "unknown hydra/launcher '../../evil': use one of basic, batchlab"),
    ("sweep hydra/launcher=../sweeper/basic", "unknown hydra/launcher '../sweeper/basic'"),
    ("config model=../../evil", OUTSIDE),
    ("sweep study=../x", "study='../x' is not a valid name: use letters"),
    ("sweep study=/tmp/x", "study='/tmp/x' is not a valid name: use letters"),
    ("sweep study=..", "study='..' is not a valid name: use letters"),
    ("sweep study=.jobs", "study='.jobs' is not a valid name: use letters"),
    ("sweep study=", "study='' is invalid: it must be a text, or null$"),
    ("sweep runs_dir=", "runs_dir='' is invalid: it must be a text$"),
    ("sweep runs_dir=~/runs", "cannot read 'runs_dir=~/runs': '~' is not expanded here"),
    ("sweep \"runs_dir='~/runs'\"", "runs_dir=~/runs is invalid: '~' is not expanded here; write out the whole path$"),
    # Hydra's own settings
    ("sweep hydra.run.dir=x", PLACE),
    ("sweep hydra.sweep.dir=../x", PLACE),
    ("sweep hydra.sweep.subdir=../../x", PLACE),
    ("sweep hydra.output_subdir=x", PLACE),
    ("sweep '~hydra.run'", PLACE),
    ("sweep hydra.job_logging.root.level=DEBUG", LOGS),
    ("sweep '+hydra.job_logging.handlers.x={class: logging.FileHandler, filename: x}'", LOGS),
    ("sweep hydra/job_logging=default", LOGS),
    ("sweep hydra/hydra_logging=default", LOGS),
    ("sweep \"grids=[['hydra/job_logging=default']]\"", LOGS),
    ("sweep hydra.searchpath=[x]", "use --config-dir DIR to add configs of your own$"),
    ("sweep hydra/sweeper=basic", r"give the values of the grid with commas or range\(...\)$"),
    ("train hydra.sweeper.command=sweep batch_size=8,32", r"give the values of the grid with commas or range\(...\)$"),
    ("sweep hydra.mode=RUN", "`batchlab train` runs one point, `batchlab sweep` every point of a grid$"),
    ("sweep hydra.job.name=x", LAUNCHER_ONLY),
    ("sweep +hydra.job.env_set.PATH=x", LAUNCHER_ONLY),
    ("sweep '+hydra={run:{dir:x}}'", LAUNCHER_ONLY),
    ("sweep +data@hydra.job_logging=digits", "a group must not be put into Hydra's own settings; leave out @...$"),
    ("sweep hydra.launcher._target_=os.system", "a launcher is chosen only by its name, hydra/launcher=NAME$"),
    ("sweep '+hydra.launcher.x={_target_: os.system}'", "a launcher is chosen only by its name, hydra/launcher=NAME$"),
    ("sweep hydra/launcher=nope", "unknown hydra/launcher 'nope'"),
    # options
    ("sweep --batch-size=8", "unknown flag --batch-size: options are written without dashes, batch_size=...$"),
    ("sweep --batch_size 8", "unknown flag --batch_size: options are written without dashes, batch_size=...$"),
    ("sweep --jobs 2", "unknown flag --jobs: options are written without dashes, jobs=...$"),
    ("sweep --nope", "unknown flag --nope: `batchlab COMMAND --help` lists the flags$"),
    ("sweep --dryrun", "unknown flag --dryrun: did you mean '--dry-run'\\?$"),
    ("sweep --forc", "unknown flag --forc: did you mean '--force'\\?$"),
    ("sweep --force=true", "--force=true is invalid: --force takes no value"),
    ("sweep --retry", "--retry needs the statuses to run again: write --retry failed,timeout$"),
    ("sweep --retry=", "--retry needs the statuses to run again"),
    ("sweep --retry batch_size=8", "--retry needs the statuses to run again"),
    ("sweep --retry faild", "--retry faild is invalid: it takes failed, timeout, .*: did you mean 'failed'\\?$"),
    ("train --retry=completed", "--retry completed is invalid: it takes failed, timeout, oom, diverged"),
    ("sweep --multirun", "--multirun is invalid: `batchlab train` runs one point"),
    ("train --run", "--run is invalid: `batchlab train` runs one point"),
    ("sweep --config-path=x", "--config-path=x is invalid: use --config-dir DIR"),
    ("sweep --config-name x", "--config-name is invalid: use --config-dir DIR"),
    ("sweep --experimental-rerun x.pickle", "--experimental-rerun is invalid: it runs code from a pickle file"),
    ("sweep --config-dir", "--config-dir needs a value, such as --config-dir my-configs$"),
    ("sweep --config-dir nowhere", "--config-dir nowhere: there is no such folder$"),
    ("sweep --cfg x", "--cfg x is invalid: use one of job, hydra, all$"),
    ("sweep --resolve", "--resolve needs --cfg job"),
    ("train --package model", "--package needs --cfg job"),
    # commands
    ("swep batch_size=8", "unknown command 'swep': did you mean 'sweep'\\?$"),
    ("batch_size=8,32", "the command is missing: write `batchlab sweep batch_size=8,32`"),
    ("--cfg job", "unknown flag --cfg: the command comes first"),
    ("''", "unknown command '': the commands are init, check, train, sweep"),
    ("list nowhere", "no study 'nowhere'"),
    ("list --jsn", "batchlab list does not take --jsn: did you mean '--json'\\?"),
    ("dashboard --port x", "--port x is invalid: it must be an integer; "),
    ("doctor x", "batchlab doctor does not take x; "),
]
# Where there is no CUDA.
INSTEAD = "(: use device=cpu, or device=auto|: unset CUDA_VISIBLE_DEVICES, or use device=cpu$)"
WITHOUT_CUDA = [
    ("sweep device=cuda", f"device=cuda was requested, but .*{INSTEAD}"),
    ("sweep device=cpu,cuda:0", f"device=cuda:0 was requested, but .*{INSTEAD}"),
]
# An empty grid has an exit code of its own: 4.
EMPTY = [
    ("sweep 'batch_size=range(0)'", r"the grid is empty: batch_size=range\(0\) gives no values$"),
    ("sweep 'batch_size=range(8,8)' lr=0.1,0.2", r"the grid is empty: batch_size=range\(8,8\) gives no values$"),
    ("sweep 'batch_size=range(8,1)'", r"the grid is empty: batch_size=range\(8,1\) gives no values$"),
    ("sweep 'model=glob(nothing*)'", r"the grid is empty: model=glob\(nothing\*\) gives no values$"),
    ("train 'batch_size=range(0)'", r"the grid is empty: batch_size=range\(0\) gives no values$"),
    ("config 'batch_size=range(0)'", r"the grid is empty: batch_size=range\(0\) gives no values$"),
]
# What only the preflight can see, which builds model and data: exit code 2, after some seconds.
SEEN_BY_THE_PREFLIGHT = [
    (
        "train device=cpu model._target_=torch.nn.Linear model.in_features=3 model.out_features=10",
        r"shapes.*\(torch/nn/modules/linear.py, line [0-9]+, in forward\). Run `batchlab check` with the same",
    ),
    ("sweep device=cpu batch_size=8,5000", "batch_size=5000 is larger than the training set of 1437 examples"),
    (
        "sweep device=cpu batch_size=64 examples=32",
        "examples=32 is less than one batch .*: use at least examples=64",
    ),
    ("train device=cpu target.metric=val/f1 target.value=0.9", "target.metric=val/f1 is not measured"),
    ("train device=cpu +model.colour=red", "model"),
]

# typo -> what was meant: one letter too many, too few, wrong, or two in the wrong order
TYPOS = {
    **dict.fromkeys(("batchsize", "bacth_size", "batch_sise", "batch_sizes", "bach_size", "batch_siz"), "batch_size"),
    **dict.fromkeys(("acumulate", "accumulate_", "accumulat", "accumlate"), "accumulate"),
    **dict.fromkeys(("micro_batchsize", "micro_batch_sze"), "micro_batch_size"),
    **dict.fromkeys(("lrs", "llr"), "lr"),
    **dict.fromkeys(("lr_scalling", "lr_scailng", "lrscaling"), "lr_scaling"),
    "refrence_batch_size": "reference_batch_size",
    **dict.fromkeys(("warmpu", "warm_up", "warmups"), "warmup"),
    "warmup_form": "warmup_from",
    **dict.fromkeys(("shedule", "schedul", "scheduel"), "schedule"),
    **dict.fromkeys(("precison", "prescision"), "precision"),
    **dict.fromkeys(("epoch", "epohcs"), "epochs"),
    **dict.fromkeys(("example", "exampels"), "examples"),
    **dict.fromkeys(("step", "stesp"), "steps"),
    "default_epoch": "default_epochs",
    "traget": "target",
    "stop_at_traget": "stop_at_target",
    **dict.fromkeys(("weight_decy", "wieght_decay"), "weight_decay"),
    "clip_nrom": "clip_norm",
    "optimiser": "optimizer",
    "sed": "seed",
    **dict.fromkeys(("devise", "devcie"), "device"),
    "thread": "threads",
    "determinstic": "deterministic",
    "eval_evry": "eval_every",
    "eval_batchsize": "eval_batch_size",
    "log_evrey": "log_every",
    "timout": "timeout",
    "checkpoint_evry": "checkpoint_every",
    "checkpoint_second": "checkpoint_seconds",
    "skip_lager": "skip_larger",
    "dryrun": "dry_run",
    "acept_changed": "accept_changed",
    "job": "jobs",
    "stduy": "study",
    "bs": "batch_size",
    "learning_rate": "lr",
    "wd": "weight_decay",
    "num_workers": "workers",
    "seeds": "seed",
    "amp": "precision",
    "fp16": "precision",
    "gradient_accumulation_steps": "accumulate",
    "num_epochs": "epochs",
    "max_grad_norm": "clip_norm",
    "scheduler": "schedule",
    "runsdir": "runs_dir",
}
TYPOS_RIGHT = 0.96  # of them, at least


class NothingRefusedIt(Exception):  # noqa: N818 - what is wrong is the line
    """A bad line that would have been run."""


def expected(*, with_preflight: bool = False) -> Iterator[tuple[str, int, str]]:
    """Every line with its exit code and message."""
    from batchlab.host.device_choice import resolve_device

    here = WITHOUT_CUDA if resolve_device("auto") == "cpu" else []
    for lines, code in ((BAD, 2), (here, 2), (EMPTY, 4), (SEEN_BY_THE_PREFLIGHT if with_preflight else [], 2)):
        yield from ((line, code, says) for line, says in lines)


def fault(line: str, code: int, says: str) -> str | None:
    """How batchlab's reaction to a bad line, run in this process in an empty folder, is wrong; None if it is right."""
    out, err = io.StringIO(), io.StringIO()
    really_run = (line, says) in SEEN_BY_THE_PREFLIGHT
    with _empty_folder() as folder, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        trap = contextlib.nullcontext() if really_run else _nothing_runs()
        try:
            with trap:
                ended: object = main(shlex.split(line))
        except Exception as error:
            return f"{line!r} ends in {type(error).__name__}: {error}"
        left = [path.name for path in folder.rglob("*") if path.is_file() or not really_run]
    message = err.getvalue()
    if ended != code:
        return f"{line!r} ends with {ended}, not {code}: {message}"
    if not re.fullmatch(r"batchlab: [^\n]+\n", message) or not message.rstrip("\n").isprintable() or out.getvalue():
        return f"{line!r} is not answered in one line: {message!r} {out.getvalue()!r}"
    if not re.search(says, message.removeprefix("batchlab: ").rstrip("\n")):
        return f"{line!r} is answered by {message!r}, not {says!r}"
    return f"{line!r} leaves {left}" if left else None


def wrong_guesses(typos: Iterable[str] | None = None) -> list[str]:
    """The `typos` (default: all) for which another key, or none, is proposed."""
    return [
        found
        for typo in (TYPOS if typos is None else typos)
        if (found := fault(f"sweep {typo}=1", 2, rf"unknown key '{typo}': did you mean '{TYPOS[typo]}'\?$"))
    ]


def run_all() -> tuple[int, list[str]]:
    """The number of bad lines, including those that only the preflight finds, and what is wrong, a line each."""
    lines = list(expected(with_preflight=True))
    failures = [found for line in lines if (found := fault(*line))]
    wrong = wrong_guesses()
    return len(lines) + len(TYPOS), failures + (wrong if len(wrong) > (1 - TYPOS_RIGHT) * len(TYPOS) else [])


@contextlib.contextmanager
def _nothing_runs() -> Iterator[None]:
    from batchlab.hydra_app import plugins

    with mock.patch.object(plugins, "run_sweep", side_effect=NothingRefusedIt):
        yield


@contextlib.contextmanager
def _empty_folder() -> Iterator[Path]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)
