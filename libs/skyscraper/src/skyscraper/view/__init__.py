"""What people are shown of a running installation: pure functions from reports, plans and profiles to rows and words.

`top`, `explain` and `plans` say what is shown; the `*_table` modules how it looks on a terminal.
"""
