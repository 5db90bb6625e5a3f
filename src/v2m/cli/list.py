"""List the models of this package, with their sizes."""

from dataclasses import dataclass
from fnmatch import fnmatch

from v2m.cli.options import Options, flag, positional


@dataclass(frozen=True, kw_only=True)
class ListOptions(Options):
    """Options of ``v2m list``.

    Attributes:
        pattern: Show names that match, such as '*tiny*'.
        flops: Count the operations for one image too.
    """

    pattern: str = positional("*")
    flops: bool = flag()


def run(options: ListOptions) -> int:
    """List models."""
    import torch
    from timm.layers import to_2tuple

    from v2m import create_model
    from v2m.cli.output import console, number_table
    from v2m.models import MODELS, HierarchicalV2MConfig
    from v2m.models.flops import CONVENTION, count_flops

    flops = ("GFLOPs", "of them scans") if options.flops else ()
    table = number_table("model", "parameters", *flops, "image", "stride", "depth", "width", "state")
    for name in (name for name in MODELS if fnmatch(name, options.pattern)):
        with torch.device("meta"):
            model = create_model(name)
        c, count = model.config, sum(p.numel() for p in model.parameters())
        strides = dict.fromkeys(str(info["reduction"]) for info in model.feature_info)
        depths, widths = (
            (c.depths, c.embed_dim) if isinstance(c, HierarchicalV2MConfig) else ((c.depth,), (c.embed_dim,))
        )
        cells = [str(c.img_size)]
        cells += ["-".join(map(str, values)) for values in (strides, depths, widths, (c.d_state,))]
        if options.flops:
            found = count_flops(model, (c.in_chans, *to_2tuple(c.img_size)))
            cells = [f"{found.total / 1e9:.2f}", f"{found.scans / 1e9:.2f}", *cells]
        table.add_row(name, f"{count:,}", *cells)
    if not table.rows:
        raise ValueError(f"pattern: no model matches {options.pattern!r}, there are {', '.join(MODELS)}")
    out = console()
    out.print(table)
    if options.flops:
        out.print()
        out.print(f"GFLOPs: {CONVENTION}.")
    return 0
