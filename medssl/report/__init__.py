"""A report of one analysis that can be kept: one HTML file, its JSON, and a DICOM capture of the heatmap."""

from medssl.report.capture import can_capture, secondary_capture
from medssl.report.many import compose_many_report
from medssl.report.report import Report, ReportOptions, compose_report

__all__ = ["Report", "ReportOptions", "can_capture", "compose_many_report", "compose_report", "secondary_capture"]
