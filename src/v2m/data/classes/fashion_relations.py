"""Scenes of garments, labelled by where the sneaker is as seen from the bag: what order in 2-D is needed for.

What is in a scene says nothing, since each holds a bag, a sneaker and two other garments. The label is a
relation of two of them along both axes: left or right must be told at whatever height, above or below at
whatever column. Along one of the axes they are only 5 to 8 pixels apart and share rows or columns, so neither
the order of the lines nor the order within them is enough. The place of the sneaker alone gives the label of
66 scenes in 100, because a scene has edges; that of the bag likewise.

A model with a position embedding can add up places without comparing garments; ``use_pos_embed=False`` leaves
the order to the mixer.
"""

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

RELATIONS = ("above left", "above right", "below left", "below right")
SCENE, GARMENT = 40, 14
SHORT, LONG = (5, 8), (14, 16)
SNEAKER, BAG = 7, 8


def build_relations(images: Bytes, labels: Integers, count: int, seed: int) -> tuple[Bytes, Integers]:
    """Build scenes from Fashion-MNIST images; the same arguments give the same scenes.

    No garments overlap. Bag and sneaker are whole; the others, of any other classes, may reach over the edge.

    Args:
        images: Gray images ``[N, 28, 28]``.
        labels: Their classes ``[N]``.
        count: Number of scenes.
        seed: Seed of the choice and the places of garments.

    Returns:
        Scenes ``[count, 40, 40]``, and the index in ``RELATIONS`` of each, all equally often.
    """
    random = np.random.default_rng(seed)
    relations = np.arange(count) % len(RELATIONS)
    positions = _positions(random, relations)
    # Garments of half their size, by the mean of each 2x2 pixels.
    halved = images.reshape(-1, GARMENT, 2, GARMENT, 2).mean((2, 4)).round().astype(np.uint8)
    others = np.flatnonzero((labels != BAG) & (labels != SNEAKER))
    chosen = np.column_stack(
        [
            random.choice(np.flatnonzero(labels == BAG), count),
            random.choice(np.flatnonzero(labels == SNEAKER), count),
            random.choice(others, (count, 2)),
        ]
    )
    # Draw with a margin, so that garments may reach over the edge, and cut it off.
    margin = GARMENT // 2
    canvas = np.zeros((count, SCENE + 2 * margin, SCENE + 2 * margin), np.uint8)
    rows, columns = np.moveaxis(positions[..., None] + margin + np.arange(GARMENT), 2, 0)
    scene = np.arange(count)[:, None, None, None]
    canvas[scene, rows[..., :, None], columns[..., None, :]] = halved[chosen]
    return canvas[:, margin:-margin, margin:-margin].copy(), relations


def _positions(random: np.random.Generator, relations: Integers) -> Integers:
    """Top and left ``[scenes, 4, 2]`` of bag, sneaker and two others."""
    count = len(relations)
    # Bag and sneaker: near to each other along one axis, far along the other, drawn which.
    distances = np.column_stack([random.integers(*span, count, endpoint=True) for span in (SHORT, LONG)])
    senses = 2 * np.column_stack([relations // 2, relations % 2]) - 1
    steps = senses * random.permuted(distances, axis=1)
    bags = random.integers(np.maximum(0, -steps), SCENE - GARMENT - np.maximum(0, steps), endpoint=True)
    places = np.zeros((count, 4, 2), np.int64)
    places[:, 0], places[:, 1] = bags, bags + steps
    # The others are drawn until no two of the four garments overlap.
    first, second = np.triu_indices(4, k=1)
    unplaced = np.arange(count)
    while len(unplaced):
        size = (len(unplaced), 2, 2)
        places[unplaced, 2:] = random.integers(-GARMENT // 2, SCENE - GARMENT // 2, size, endpoint=True)
        found = places[unplaced]
        apart = np.abs(found[:, first] - found[:, second]).max(-1) >= GARMENT
        unplaced = unplaced[~apart.all(1)]
    return places
