import pytest
from django.core.cache import cache


@pytest.fixture(autouse=True)
def no_rates_kept():
    """Rate limits are counted in the cache, which tests share."""
    cache.clear()
