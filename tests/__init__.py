"""Tests mirror the packages; real servers, small data."""
