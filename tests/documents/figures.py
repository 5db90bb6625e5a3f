"""The figures in sentences of documents, each of result files."""

from statistics import mean, stdev

from tests.documents.results import CURRENT, read_epochs, read_result, scores, timed

DIGITS = "train_digits_amd-epyc_20261128"
CIFAR10 = "train_cifar10_nvidia-h100-80gb-hbm3_20261128"
CIFAR10_RECIPE, CAMVID = "train_cifar10_nvidia-h200_20261128", "train_camvid_nvidia-h200_20261128"


def file(word):
    """The name of the file behind a table."""
    return f"`benchmarks/results/{CURRENT[word]}.json`"


def digits(metric="top1"):
    """A score of the last epoch of ``make demo``."""
    return f"{100 * read_epochs(DIGITS)[-1][f'val_{metric}']:.2f} %"


def fashion_mnist(metric="top1"):
    return f"{100 * read_result('noted_fashion-mnist')['rows'][-1][f'val_{metric}']:.2f} %"


def cifar10():
    return f"{100 * read_epochs(CIFAR10)[-1]['val_top1']:.1f} %"


def cifar10_time():
    """How long the epochs took, validation left out."""
    return f"{sum(row['seconds'] for row in read_epochs(CIFAR10)) / 60:.1f} minutes"


def cifar10_recipe():
    """The accuracy of the recipe's run, which was stopped before its end."""
    return f"{100 * read_epochs(CIFAR10_RECIPE)[-1]['val_top1']:.2f} %"


def camvid(metric="miou"):
    return f"{100 * read_epochs(CAMVID)[-1][f'val_{metric}']:.2f} %"


def points(study, first, second="corners"):
    """How far two variants of a study are apart in the mean, in percentage points."""
    one, two = (mean(scores(study, label, "top1").values()) for label in (first, second))
    return f"{abs(one - two):.1f}"


def least_points(study, first, second="corners"):
    """The least difference within a seed, in percentage points."""
    one, two = (scores(study, label, "top1") for label in (first, second))
    return f"{min(one[seed] - two[seed] for seed in one):.1f}"


def score(study, label, digits="1"):
    """The mean top-1 accuracy of a variant in percent."""
    return f"{mean(scores(study, label, 'top1').values()):.{digits}f}"


def spread(study, label):
    """The same with its standard deviation over the seeds."""
    values = scores(study, label, "top1").values()
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


def spread_of_difference(study, first, second):
    one, two = (scores(study, label, "top1") for label in (first, second))
    values = [one[seed] - two[seed] for seed in one if seed in two]
    return f"{mean(values):.1f} ± {stdev(values):.1f}"


def points_of_seeds(study, first, first_seed, second, second_seed):
    """How far two runs of a study are apart, in percentage points."""
    one, two = scores(study, first, "top1"), scores(study, second, "top1")
    return f"{abs(one[int(first_seed)] - two[int(second_seed)]):.2f}"


def refined(sweeps):
    """The accuracy of a model whose exact recurrence is replaced by sweeps."""
    (row,) = (row for row in read_result("noted_refinement")["rows"] if row["sweeps"] == sweeps)
    return f"{100 * row['top1']:.1f} %"


def ahead(study, metric, first, second):
    """How far a backbone is ahead of another in the mean, in points."""
    one, two = (mean(scores(study, label, metric).values()) for label in (first, second))
    return f"{one - two:.1f}"


def scan_share(competitor, mode="forward"):
    """The time of our scans as a share of a competitor's."""
    rows = timed("scans", "competitor")
    own, other = (rows[name, mode, 14]["timing"]["median"] for name in ("ours", competitor))
    return f"{own / other:.2f}"


def scan_time(name, grid):
    """Nanoseconds per token and scan, forward."""
    return f"{timed(name, 'competitor')['ours', 'forward', int(grid)]['ns_per_token']:.0f}"


def ceilings(name):
    """What a machine can do."""
    found = read_result(name)["rows"][0]["ceilings"]
    numbers = (
        f"{found[kind] / 1e9:,.{0 if found[kind] > 9e10 else 2}f}" for kind in ("exps", "flops", "bytes")
    )
    return "{} Gexp/s, {} GFLOP/s, {} GB/s".format(*numbers)


def step_memory(model, unit="MB"):
    """What a training step at batch 4 takes."""
    megabytes = timed("step_memory")[model, "training step", 224]["memory"]
    return f"{megabytes:.0f} MB" if unit == "MB" else f"{megabytes / 1024:.1f} GB"


def share(name, model, baseline, resolution, mode="inference", digits="2"):
    """Images per second of a model as a share of another one's."""
    rows = timed(name)
    own, other = (rows[key, mode, int(resolution)]["images_per_s"] for key in (model, baseline))
    return f"{own / other:.{digits}f}"


def noted_ratio(mode, resolution, batch_size, model="corners"):
    """Images per second of V2M-T over those of DeiT-T on an Intel Xeon, as noted."""
    key = dict(mode=mode, resolution=int(resolution), batch_size=int(batch_size))
    (row,) = (row for row in read_result("noted_intel-xeon")["ratios"] if key.items() <= row.items())
    return f"{row[model]:.2f}"


def graph_gain():
    """By how much a CUDA graph makes inference faster, from the least to the most."""
    rows = [
        row
        for row in read_result("launches_nvidia-h100-80gb-hbm3_20261127-220530")["rows"]
        if "cuda_graph_ms" in row
    ]
    gains = sorted(row["eager_ms"] / row["cuda_graph_ms"] for row in rows)
    return f"{gains[0]:.0f} to {gains[-1]:.0f}"


def probe_cosine(model):
    rows = read_result("probe_digits_amd-epyc_20261128")["rows"]
    (row,) = (row for row in rows if row["model"] == model)
    return f"{row['mean_cosine_of_training_images']:.2f}"


FIGURES = {
    function.__name__: function
    for function in (
        file,
        digits,
        fashion_mnist,
        cifar10,
        cifar10_time,
        cifar10_recipe,
        camvid,
        points,
        least_points,
        score,
        spread,
        spread_of_difference,
        points_of_seeds,
        refined,
        ahead,
        scan_share,
        scan_time,
        ceilings,
        step_memory,
        share,
        noted_ratio,
        graph_gain,
        probe_cosine,
    )
}
"""Figures, by the word that documents have for them; the words after it are the arguments."""
