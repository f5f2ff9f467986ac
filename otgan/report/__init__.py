"""The report: one self-contained HTML page about a run, for people who were not there.

from otgan.report import write_report

write_report("runs/mine")        # runs/mine/report.html
"""

from otgan.report.page import report_html, write_report

__all__ = ["report_html", "write_report"]
