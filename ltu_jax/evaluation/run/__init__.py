"""One evaluation run: clips, answers, grades and figures in a run directory."""
