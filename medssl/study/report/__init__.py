"""The report of a study: the answer first, then tables, plots, the audit, and what the data cannot show."""
