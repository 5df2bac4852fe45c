"""The report of a sweep: one HTML page that needs no network, and the same pictures as files for papers.

`page.write` and `paper.write` make them; `compare.write` sets two sweeps side by side. Every picture is a
`charts.Chart` first, so that page and paper draw the same numbers.
"""
