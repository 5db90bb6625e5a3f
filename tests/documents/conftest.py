import pytest


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """A folder for the things that documents name, each made once."""
    return tmp_path_factory.mktemp("things")
