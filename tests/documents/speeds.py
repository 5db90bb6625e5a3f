"""The tables of speed and memory, each of result files."""

from tests.documents.markdown import markdown, significant
from tests.documents.results import read_result, timed
from v2m.benchmark.comparison import CLASS_LIMITS, LABELS, ComparedModel

INFERENCE, STEP = "inference", "training step"
MODELS = {
    **LABELS,
    "v2m_tiny_patch16_224:decay=geometric,directions=corners_rows_first": "V2M-T, geometric, rows first",
    "v2m_tiny_patch16_224:mixer=exact": "V2M-T, exact recurrence",
    "v2m_tiny_patch16_224:mixer=raster": "V2M-T, one dimension (`mixer=raster`)",
    "v2m_hierarchical_small:mixer=exact": "V2M-S*, exact recurrence",
}
"""What documents call the models of a benchmark; the others have their own names."""


def speed(name, *models):
    """Images per second of models, by default of all, and their share of the first one's."""
    baseline, *models = models or dict.fromkeys(model for model, _, _ in timed(name))
    rows, (_, _, resolution) = timed(name), next(iter(timed(name)))
    batch = read_result(name)["settings"]["batch_size"]
    cells = []
    for model in (baseline, *models):
        row = [MODELS.get(model, f"`{model}`")]
        for mode in (INFERENCE, STEP):
            own = rows[model, mode, resolution]["images_per_s"]
            share = own / rows[baseline, mode, resolution]["images_per_s"]
            row += [significant(own), "1" if model == baseline else f"{share:.2f}"]
        cells.append(row)
    share = f"to {MODELS[baseline]}"
    headings = (
        f"batch {batch}, {resolution} px",
        "inference, images/s",
        share,
        "training step, images/s",
        share,
    )
    return markdown(headings, cells)


def light_speed():
    """The light models at two batch sizes."""
    one, eight = timed("light_batch_1"), timed("light_batch_8")
    columns = [(one, INFERENCE), (eight, INFERENCE), (eight, STEP)]
    baseline = "deit_tiny_patch16_224"
    cells = []
    for model in (baseline, "v2m_lite_nano", "v2m_lite_tiny", "v2m_lite_small"):
        size = one[model, INFERENCE, 224]["parameters"]
        row = [f"{MODELS.get(model, f'`{model}`')}, {size / 1e6:.1f} M"]
        row += [_with_share(rows, model, baseline, mode, 224) for rows, mode in columns]
        cells.append(row)
    headings = (
        "light models, images/s (to DeiT-T)",
        "inference, batch 1",
        "inference, batch 8",
        "training step, batch 8",
    )
    return markdown(headings, cells)


def speed_by_resolution():
    rows = timed("resolutions")
    baseline, *models = dict.fromkeys(model for model, _, _ in rows)
    resolutions = (224, 512, 1024)
    cells = [
        [MODELS[model], *(_with_share(rows, model, baseline, INFERENCE, size) for size in resolutions)]
        for model in (baseline, *models)
    ]
    return markdown(("inference, images/s (to DeiT-T)", *(f"{size} px" for size in resolutions)), cells)


def _with_share(rows, model, baseline, mode, resolution):
    own = rows[model, mode, resolution]["images_per_s"]
    share = own / rows[baseline, mode, resolution]["images_per_s"]
    return f"{significant(own)} ({'1' if model == baseline else f'{share:.2f}'})"


def threads():
    """Two threads beside one, on a machine without other work."""
    cells = []
    for batch in (1, 8):
        one, two = timed(f"one_thread_batch_{batch}"), timed(f"two_threads_batch_{batch}")
        for model in dict.fromkeys(model for model, _, _ in one):
            row = [MODELS[model], str(batch)]
            for mode in (INFERENCE, STEP):
                speeds = [rows[model, mode, 224]["images_per_s"] for rows in (one, two)]
                row += [*map(significant, speeds), f"{speeds[1] / speeds[0]:.2f}"]
            cells.append(row)
    headings = (
        "224 px",
        "batch",
        "inference, one thread",
        "two",
        "ratio",
        "training step, one thread",
        "two",
        "ratio",
    )
    return markdown(headings, cells)


SHARES = ("pass forward", "pass backward", "scan forward", "scan backward")
RATIOS = ("resolutions", "readme", "step_memory")
"""Files of one thread of the processor at hand, by batch size: 1, 8 and 4."""


def processors():
    """One thread of two processors: how near our kernels are to their ceilings, and V2M-T beside DeiT-T."""
    noted = read_result("noted_intel-xeon")
    rows = []
    for kernel in SHARES:
        shares = [_share_of_ceilings(name, kernel) for name in ("roofline", "roofline_avx2")]
        shares.append(noted["roofline"][kernel])
        rows.append([f"{kernel}, (exps + FLOPs) / time", *(f"{share:.0%}" for share in shares)])
    files = {read_result(word)["settings"]["batch_size"]: timed(word) for word in RATIOS}
    baseline, corners, rows_first = (
        "deit_tiny_patch16_224",
        "v2m_tiny_patch16_224",
        "v2m_tiny_patch16_224:directions=corners_rows_first",
    )
    for ratio in noted["ratios"]:
        found, mode, size = files[ratio["batch_size"]], ratio["mode"], ratio["resolution"]
        names = [(model, mode, size) for model in (baseline, corners, rows_first)]
        speeds = [found[name]["images_per_s"] for name in names if name in found]
        here = "not measured"
        if len(speeds) == len(names):
            here = f"{speeds[1] / speeds[0]:.2f} ({speeds[2] / speeds[0]:.2f})"
        there = f"{ratio['corners']:.2f}"
        there += f" ({ratio['rows_first']:.2f})" if "rows_first" in ratio else ""
        title = f"{mode}, {size} px, batch {ratio['batch_size']}"
        rows.append([f"{title}: V2M-T / DeiT-T", here, "", there])
    headings = ("one thread", "AMD EPYC (Zen 4), AVX-512", "the same, AVX2", "Intel Xeon, AVX-512, before")
    return markdown(headings, rows)


def _share_of_ceilings(name, kernel):
    """The time of exponentials and FLOPs, as a share of that of a kernel."""
    (row,) = (row for row in read_result(name)["rows"] if row["kernel"] == kernel)
    floor = sum(row["work"][kind] / row["ceilings"][kind] for kind in ("exps", "flops"))
    return floor / row["timing"]["median"]


def comparison(resolution):
    """The readers' comparison at one image size, by class of size and from the fastest."""
    models = [ComparedModel.of(row) for row in read_result("comparison")["rows"]]
    models = sorted((m for m in models if m.resolution == int(resolution)), key=_class_and_speed)
    rows = []
    for model in models:
        name = MODELS.get(model.model, f"`{model.model}`")
        own_size = "" if model.pixels == model.resolution else f" ({model.pixels} px)"
        memory = [found.memory for found in model.measurements[-2:]]
        rows.append(
            [
                f"**{name}**" if model.model.startswith("v2m_") else name + own_size,
                f"{model.parameters / 1e6:.1f} M",
                f"{model.gmacs:.2f}",
                *(
                    significant(found.images_per_s) if found.images_per_s else found.note or "-"
                    for found in model.measurements
                ),
                *("-" if megabytes is None else f"{megabytes:,.0f}" for megabytes in memory),
            ]
        )
    uses = [f"{found.mode}, batch {found.batch_size}" for found in models[0].measurements]
    headings = (f"{resolution} px, images/s", "parameters", "GMACs", *uses, "inference, MB", "training, MB")
    parts = []
    for title in dict.fromkeys(model.size_class for model in models):
        of_class = [row for row, model in zip(rows, models, strict=True) if model.size_class == title]
        parts.append(f"{title[0].upper()}{title[1:]}:\n\n{markdown(headings, of_class)}")
    return "\n\n".join(parts)


def _class_and_speed(model):
    """From the smallest class, and in it from the fastest at inference in a batch."""
    place = sum(model.parameters > 1e6 * limit for limit in CLASS_LIMITS)
    return place, -(model.measurements[-2].images_per_s or 0)


def scans():
    """Implementations of a layer's scans, from the fastest."""
    rows = timed("scans", "competitor")
    modes = ("forward", "forward + backward")
    seconds = {key: row["timing"]["median"] for key, row in rows.items()}
    names = sorted({name for name, _, _ in rows}, key=lambda name: seconds[name, modes[0], 14])
    cells = []
    for name in names:
        row = [f"`{name}`"]
        for mode in modes:
            ratio = seconds[name, mode, 14] / seconds["ours", mode, 14]
            row += [
                significant(1e3 * seconds[name, mode, 14]),
                "1" if name == "ours" else f"{ratio:#.2g}".rstrip("."),
            ]
        cells.append(row)
    return markdown(("", "forward, ms", "time / ours", "forward + backward, ms", "time / ours"), cells)


def scans_by_grid(*names):
    """Nanoseconds per token and scan of our kernels."""
    rows = {key: row for name in names for key, row in timed(name, "competitor").items()}
    grids = list(dict.fromkeys(grid for _, _, grid in rows))
    cells = [
        [title, *(significant(rows["ours", mode, grid]["ns_per_token"]) for grid in grids)]
        for mode, title in (
            ("forward", "forward, ns per token and scan"),
            ("forward + backward", "forward + backward"),
        )
    ]
    return markdown(("tokens", *(f"{grid}x{grid}" for grid in grids)), cells)


LAUNCHED = {
    "inference_mode_batch_128": "`inference_mode`",
    "no_grad_batch_128": "`no_grad`",
    "forward_backward_batch_32": "forward and backward, batch 32",
}
"""What was timed at several commits, and its heading."""


def launches():
    """What a GPU does while Python launches kernels."""
    cells = []
    for row in read_result("launches_nvidia-h100-80gb-hbm3_20261127-220530")["rows"]:
        graph = f"{row['cuda_graph_ms']:.1f}" if "cuda_graph_ms" in row else ""
        cells.append(
            [
                row["mode"],
                str(row["batch_size"]),
                significant(row["eager_ms"]),
                graph,
                significant(row["gpu_busy_ms"]),
            ]
        )
    return markdown(("V2M-T, 224 px", "batch", "ms", "ms as a CUDA graph", "ms that the GPU is busy"), cells)


def launches_by_commit():
    """Times of one model at three commits, in the order in which they took turns."""
    rows = [
        (f"`{row['commit']}`", *(significant(row[f"{key}_ms"]) for key in LAUNCHED))
        for row in read_result("commits_nvidia-h200_20261128")["rows"]
    ]
    return markdown(("commit", *(f"{heading}, ms" for heading in LAUNCHED.values())), rows)


def roofline(name):
    cells = []
    for row in read_result(name)["rows"]:
        seconds = row["timing"]["median"]
        floors = [row["work"][kind] / row["ceilings"][kind] for kind in ("exps", "flops", "bytes")]
        cells.append(
            [
                row["kernel"],
                significant(1e3 * seconds),
                *(f"{1e3 * floor:.2f}" for floor in floors),
                f"{max(floors) / seconds:.0%}",
                f"{(floors[0] + floors[1]) / seconds:.0%}",
            ]
        )
    headings = (
        "kernel",
        "ms",
        "ms of exps",
        "ms of FLOPs",
        "ms of bytes",
        "floor / ms",
        "(exps + FLOPs) / ms",
    )
    return markdown(headings, cells)


SPEED_TABLES = (
    speed,
    light_speed,
    speed_by_resolution,
    threads,
    processors,
    comparison,
    scans,
    scans_by_grid,
    launches,
    launches_by_commit,
    roofline,
)
