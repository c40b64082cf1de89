"""Headrace's tests."""

import pytest

# Suites that assert outside of test modules: their asserts say as much as a test's.
pytest.register_assert_rewrite("tests.support")
