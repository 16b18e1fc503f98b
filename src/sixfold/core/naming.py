"""Names that a user may type: what other programs call our options.

Imports nothing, so that a word that nobody knows is answered before torch is loaded.
"""

import difflib
from collections.abc import Collection, Iterable

_OPTIONS = {
    "lr": "learning-rate base-lr init-lr lr-init initial-lr eta",
    "epochs": "num-epochs n-epochs nepochs max-epochs epoch num-train-epochs train-epochs",
    "steps": "num-steps n-steps max-steps max-iter max-iters iterations num-iterations iters",
    "batch-size": "batch batchsize bs train-batch-size global-batch-size mini-batch-size minibatch",
    "out": "output-dir output out-dir outdir save-dir run-dir log-dir logdir work-dir results-dir",
    "workers": "num-workers n-workers nworkers nproc nprocs num-processes world-size processes "
    "num-procs n-jobs nproc-per-node",
    "data": "dataset data-dir data-path datadir data-root dataset-path train-data input",
    "model": "arch architecture network net model-name backbone",
    "model-args": "model-kwargs model-params",
    "optimizer": "optim opt optimiser",
    "weight-decay": "wd weightdecay l2",
    "schedule": "lr-schedule scheduler lr-scheduler lr-policy lr-scheduler-type",
    "warmup": "warmup-epochs lr-warmup-epochs warm-up",
    "seed": "random-seed manual-seed random-state rng-seed",
    "validation": "val val-split validation-split val-fraction val-size",
    "resize": "image-size img-size imgsz input-size img-sz",
    "max-images": "images num-images num-samples max-samples limit",
    "deterministic": "exact",
    "loss": "criterion loss-fn loss-function objective",
    "label-smoothing": "smoothing",
    "class-weights": "class-weight pos-weight",
    "weight-column": "sample-weight sample-weights weight-col",
    "aux-weight": "aux-weights aux-loss-weight",
    "aggregation": "merge",
    "on-error": "on-bad",
    "augment": "augmentation augmentations aug transforms data-augmentation",
    "precision": "dtype data-type",
    "master": "spark-master",
    "spark-conf": "conf",
    "strategy": "algorithm parallelism parallel-strategy",
    "resume": "continue",
    "weights": "init-weights pretrained-weights load-weights",
    "micro-batch": "micro-batch-size microbatch",
}
_LED = {
    "gpu": "--device cuda",
    "gpus": "--device cuda, with as many --workers",
    "cuda": "--device cuda",
    "amp": "--precision bf16",
    "fp16": "--precision bf16",
    "bf16": "--precision bf16",
    "dropout": "--model-args dropout=P, where the network takes it",
    "per-device-train-batch-size": "--batch-size, which counts the images of all workers",
    "batch-size-per-gpu": "--batch-size, which counts the images of all workers",
    "pretrained": "--weights FILE",
    "num-classes": "nothing: the data say how many classes there are",
    "patience": "--early-stopping METRIC:PATIENCE, or --schedule plateau:PATIENCE",
    "checkpoint": "--resume to go on with a run, or --weights FILE to begin with its weights",
    "ckpt": "--resume to go on with a run, or --weights FILE to begin with its weights",
    "force": "--overwrite",
    "save-every": "--checkpoint-every, in steps",
    "save-steps": "--checkpoint-every, in steps",
    "eval-every": "--evaluate-every, in epochs",
    "eval-steps": "--evaluate-every, in epochs",
    "warmup-steps": "--warmup, in epochs",
    "shuffle": "nothing: the order follows from --seed and is another one in every epoch",
    "verbose": "nothing: progress is always shown; --debug shows tracebacks",
    "quiet": "nothing: progress goes to standard error, which can be sent away with 2>/dev/null",
}
"""Words whose value does not carry over: what is to be given in their place."""

_VALUES = {
    "gpu": "cuda",
    "bfloat16": "bf16",
    "fp32": "float32",
    "float": "float32",
    "fp64": "float64",
    "double": "float64",
    "pyspark": "spark",
    "process": "local",
    "multiprocessing": "local",
    "thread": "inline",
    "threads": "inline",
    "serial": "inline",
    "ddp": "sync",
    "data_parallel": "sync",
    "allreduce": "sync",
    "synchronous": "sync",
    "fedavg": "local_sgd",
    "ps": "param_server",
    "parameter_server": "param_server",
    "rans": "ans",
    "syncbn": "sync",
    "ignore": "skip",
}
_OF = {other: name for name, others in _OPTIONS.items() for other in others.split()}


def flag_of(field: str) -> str:
    """The option of a setting; its field ends in _ where the option is a word of Python.

    >>> flag_of("max_steps"), flag_of("lambda_")
    ('--max-steps', '--lambda')
    """
    return "--" + field.rstrip("_").replace("_", "-")


def option_of(word: str, known: Iterable[str]) -> str | None:
    """The option that another spelling or another program's name means; without dashes.

    >>> option_of("batch_size", ["batch-size"]), option_of("Learning_Rate", ["lr", "seed"])
    ('batch-size', 'lr')
    """
    known = set(known)
    plain = word.replace("_", "-").lower()
    if plain in known:
        return plain
    name = _OF.get(plain)
    return name if name in known else None


def instead_of(word: str, known: Collection[str]) -> str | None:
    """What is to be given for a word whose value does not carry over; `known` begin with --.

    >>> instead_of("pretrained", ["--weights"])
    '--weights FILE'
    """
    led = _LED.get(word.replace("_", "-").lower(), "")
    needs = {part.rstrip(",") for part in led.split() if part.startswith("--")}
    return led if led and needs - {"--debug"} <= set(known) else None


def unknown_option(words: str, known: Iterable[str], prog: str) -> str:
    """A line on an option, as it was typed, that `prog` does not know, with the nearest one."""
    flag = words.split()[0].partition("=")[0]
    plain = flag.lstrip("-").replace("_", "-").lower()
    names = {name.lstrip("-"): name for name in known}
    names = {other: names[name] for other, name in _OF.items() if name in names} | names
    if led := instead_of(plain, set(names.values())):
        hint = f"give {led} "
    else:
        near = difflib.get_close_matches(plain, names, n=1, cutoff=0.7)
        hint = f"did you mean {names[near[0]]}? " if near else ""
    return f"unknown argument {words}{f': {hint}' if hint else ' '}(see `{prog} --help`)"


def meant(name: str, known: Iterable[str]) -> list[str]:
    """Known names that an unknown one may stand for, the likeliest first; at most two."""
    known = list(known)
    plain = name.lower().replace("-", "_")
    other = _VALUES.get(plain) or _OF.get(plain.replace("_", "-"), "").replace("-", "_")
    if other in known:
        return [other]
    return difflib.get_close_matches(name, known, n=2) or difflib.get_close_matches(
        name.lower(), known, n=2
    )
