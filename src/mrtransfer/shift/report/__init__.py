"""What a comparison of two domains looks like: a page, a section of a study's report, figures for papers, a table."""

from mrtransfer.shift.report.figures import save_figures
from mrtransfer.shift.report.page import draw_shift_report, shift_section

__all__ = ["draw_shift_report", "save_figures", "shift_section"]
