"""Makes the golden data of tests from published code."""
