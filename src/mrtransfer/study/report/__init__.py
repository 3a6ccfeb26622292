"""The report: one self-contained HTML file that says the verdict first, and a tidy table of every number."""

from mrtransfer.study.report.context import AuditPair, ReportContext, build_context
from mrtransfer.study.report.draw import draw_report

__all__ = ["AuditPair", "ReportContext", "build_context", "draw_report"]
