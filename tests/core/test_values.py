"""Numbers of command lines."""

import argparse

import pytest

from ltu_jax.core.values import real_number


@pytest.mark.parametrize("text", ["nan", "-NaN", "much", ""])
def test_what_is_no_number_is_refused_by_its_option(text, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--least", type=real_number)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args([f"--least={text}"])
    assert stop.value.code == 2 and "--least" in capsys.readouterr().err
    assert parser.parse_args(["--least=-1e-3"]).least == -0.001
