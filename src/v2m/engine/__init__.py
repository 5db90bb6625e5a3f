"""Training, and evaluation while training.

Where to look:

- ``train``: the loop, and in which order a run begins.
- ``learner``: one step, and everything that has weights or moments; ``optimizer``, ``nonfinite`` beside it.
- ``run_folder``: the files of a run; ``checkpoint``: those that resuming needs; ``run_state``: in them.
- ``resolve``: the configuration with nothing left open.
- ``processes``: what is known before they are joined; ``parallel``: how they are, and what they share.
- ``sharding``: one model in all processes; ``device``: what each computes on.
- ``evaluate``: scores; ``facts``: what is told before; ``progress``, ``trackers``: where metrics are shown;
  ``stopping``: Ctrl-C.

The order of images is ``v2m.data.loading``'s, and renaming of partial files ``v2m.system.files``'s.
"""
