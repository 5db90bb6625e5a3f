from PIL import Image

from v2m.data.classes.survey import survey


def test_size_is_that_of_an_image(tmp_path):
    for index, size in enumerate([(64, 48), (48, 64), (80, 60), (60, 80), (64, 48)]):
        folder = tmp_path / "abc"[index % 2]
        folder.mkdir(exist_ok=True)
        Image.new("RGB", size).save(folder / f"{index}.png")

    found = survey(str(tmp_path))

    assert found is not None
    assert sorted((found.width, found.height)) == [48, 64]
