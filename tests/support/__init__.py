"""Helpers that tests of several folders share; a helper of one folder lies in that folder."""
