import io
import zipfile

import pytest
import torch

from v2m.system.archives import check_stored


def test_what_torch_saves_takes_no_more_memory_than_its_size(tmp_path):
    torch.save(dict(weights=torch.zeros(4), epoch=1), tmp_path / "state.pt")
    check_stored(tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("compression", "before", "pickle", "reason"),
    [
        (zipfile.ZIP_DEFLATED, b"", b"N.", "compressed, expected a file as torch.save writes it"),
        (zipfile.ZIP_STORED, b"#", b"N.", "something is before the archive"),
        (
            zipfile.ZIP_STORED,
            b"",
            b"ctorch\nTensor\n.",
            "torch Tensor in it, expected tensors and plain data",
        ),
    ],
)
def test_what_may_take_more_is_refused(tmp_path, compression, before, pickle, reason):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickle)
    path = tmp_path / "state.pt"
    path.write_bytes(before + content.getvalue())
    with pytest.raises(ValueError, match=reason):
        check_stored(path)
