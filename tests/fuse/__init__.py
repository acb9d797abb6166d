"""Tests of the kernel's protocol, with the kernel played by the test."""
