"""EXIF orientation: how photos are turned to be upright."""

from PIL import ExifTags, Image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of each EXIF orientation upright."""
KEEP_SIZE = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
)


HOLDERS = frozenset(("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"))
"""Where in ``image.info`` an orientation may be."""


def find_orientation(image: Image.Image) -> int:
    """EXIF's orientation of an opened image, 1 to 8; 1 where it is upright, as Pillow makes TIFF files."""
    if HOLDERS.isdisjoint(image.info):  # getexif is slower, and decodes PNG files
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF, of all kinds; PIL's exif_transpose would give the image up
        return 1
    return orientation if orientation in TURNS else 1


def find_turn(image: Image.Image) -> Image.Transpose | None:
    """What makes an opened image upright; None where it is."""
    return TURNS.get(find_orientation(image))


def is_hidden_turn(image: Image.Image) -> bool:
    """Whether an opened image is turned, and its size does not show it."""
    turn = find_turn(image)
    return turn in KEEP_SIZE or (turn is not None and image.width == image.height)
