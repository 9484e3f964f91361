"""Reports of evaluation runs: text tables, plots and HTML pages."""
