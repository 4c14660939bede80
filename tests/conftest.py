import pytest


@pytest.fixture(scope="session")
def encoder():
    """The bundled model."""
    import polylex

    return polylex.load()
