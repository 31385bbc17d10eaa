"""Generated from proto/skyscraper/v1 by `make proto`; never edited by hand."""
