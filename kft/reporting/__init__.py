"""Reports: question, data, training, assessment and limits of a piece of work, on one page.

`report` takes what other functions return and writes one HTML page that needs no network and no
script, or the same as Markdown or as a Jupyter notebook.
"""

from kft.reporting.writing import Report, report

__all__ = ["Report", "report"]
